"""Schedules of documents."""

from __future__ import annotations

from app.documents.jobs import ReadScans
from app.jobs.schedules.store import Schedule

Schedule("pictures without tesseract", ReadScans(), cron="17 * * * *")

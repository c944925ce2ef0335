"""Events of jobs: published to Redis, and delivered to the subscribers of a job or of a tenant."""

"""A command takes its server and key from a profile or from the environment."""

from __future__ import annotations

from app.cli import exit_codes
from tests.support.processes import free_port
from tests.support.stack import API_SECRET
from tests.unit.api.conftest import Api
from tests.unit.cli.terminals import RemoteTerminal


def test_a_profile_names_server_and_key(lite_api: Api, remote_terminal: RemoteTerminal) -> None:
    profiles = remote_terminal.profiles
    (profiles.parent / "key").write_text(f"{API_SECRET}\n")
    profiles.write_text(
        f'profile = "usual"\n[profiles.usual]\nurl = "http://127.0.0.1:{free_port()}"\n'
        f'[profiles.work]\nurl = "{lite_api.url}"\napi_key_file = "key"\n'
        f'[profiles.bare]\nurl = "{lite_api.url}"\n'
        '[profiles.odd]\nurl = "ftp://x"\n'
    )
    environment = {"MILLRACE_URL": lite_api.url, "MILLRACE_API_KEY": API_SECRET}
    assert remote_terminal("--profile", "work", "jobs", "list", "--json").json["data"] == []
    assert remote_terminal("jobs", "list", MILLRACE_PROFILE="work").code == exit_codes.OK
    assert remote_terminal("jobs", "list").code == exit_codes.UNREACHABLE
    assert remote_terminal("jobs", "list", **environment).code == exit_codes.OK
    # A profile without a key does not get the key of this machine.
    refused = remote_terminal("--profile", "bare", "jobs", "list", MILLRACE_API_SECRET=API_SECRET)
    assert refused.code == exit_codes.NOT_ALLOWED


def test_a_wrong_profile_is_one_sentence(lite_api: Api, remote_terminal: RemoteTerminal) -> None:
    remote_terminal.profiles.write_text(
        f'[profiles.work]\nurl = "{lite_api.url}"\n[profiles.odd]\nurl = "ftp://x"\n'
        '[profiles.lost]\nurl = "http://x"\napi_key_file = "nowhere"\n'
    )
    for name, expected in (("unknown", "lost, odd, work"), ("odd", "not 'ftp://x'"), ("lost", "api_key_file")):
        ran = remote_terminal("--profile", name, "jobs", "list")
        assert (ran.code, expected in ran.err, len(ran.err.splitlines())) == (exit_codes.USAGE, True, 1), ran.err
    remote_terminal.profiles.write_text("profile = ")
    assert remote_terminal("--profile", "work", "jobs", "list").code == exit_codes.USAGE

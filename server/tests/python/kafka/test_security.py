"""A broker that demands to know who comes: SASL PLAIN and SCRAM, TLS with and without a client's certificate."""

import pytest

from streaming.outages import waits
from streaming.properties import PASSWORD
from streaming.stage import filled, outcome

WRONG = "not-the-password-either"
RECORDS = 1_000
# librdkafka tries again after these, and each attempt is a line of the log that is waited for.
IMPATIENT = {"reconnect.backoff.ms": "100", "reconnect.backoff.max.ms": "500"}


def entry(stage, how: str, password: str = PASSWORD) -> dict:
    """Settings of a route for one of the broker's ways in, with the password, if any, in a file."""
    client = stage.cluster.client(how, password)
    route = {"brokers": client.pop("bootstrap.servers"), "client": client | IMPATIENT}
    if secret := client.pop("sasl.password", None):
        route["client"].pop("sasl.password")
        file = stage.folder / "password"
        file.write_text(f"{secret}\n")
        route["client_files"] = {"sasl.password": str(file)}
    return route


def told(one) -> str:
    """All that an instance shows to anybody."""
    check = one.run("check")
    return "\n".join([one.said(), one.page(), check.stdout, check.stderr])


# SASL over TLS is SCRAM where nothing else is said; PLAIN must be safe there too.
PLAIN = {"sasl.mechanism": "PLAIN"}
WAYS = [("sasl_plaintext", {}), ("sasl_ssl", {}), ("sasl_ssl", PLAIN), ("ssl", {})]


@pytest.mark.parametrize(("how", "besides"), WAYS, ids=["plain", "scram-over-tls", "plain-over-tls", "mutual-tls"])
def test_a_stream_is_scored_through_a_secured_listener(how, besides, stage):
    route = entry(stage, how)
    stream = filled(stage, how.replace("_", "-"), **route | {"client": route["client"] | besides})
    one = stream.instance().wait_ready()
    stream.wait_end()
    assert PASSWORD not in told(one)
    done = outcome(stream)
    assert done.verdict, str(done.verdict)


def test_a_password_may_come_from_the_environment(stage, monkeypatch):
    monkeypatch.setenv("PASSWORD_OF_THE_STREAM", PASSWORD)
    route = entry(stage, "sasl_ssl")
    route.pop("client_files")
    stream = filled(stage, "from-environment", client_env={"sasl.password": "PASSWORD_OF_THE_STREAM"}, **route)
    one = stream.instance().wait_ready()
    stream.wait_end()
    assert PASSWORD not in told(one)
    done = outcome(stream)
    assert done.verdict, str(done.verdict)


@pytest.mark.parametrize("how", ["sasl_plaintext", "sasl_ssl"])
def test_a_wrong_password_is_named_and_not_shown(how, stage):
    stream = filled(stage, "wrong-password", **entry(stage, how, WRONG))
    one = stream.instance()
    waits(one, "uthentication failed")
    assert WRONG not in told(one)
    assert not stream.group.total()


def test_a_broker_of_unknown_origin_is_refused(stage):
    route = entry(stage, "sasl_ssl")
    route["client"]["ssl.ca.location"] = str(stage.cluster.secrets / "stranger.pem")
    stream = filled(stage, "unknown-origin", **route)
    one = stream.instance()
    waits(one, "certificate verify failed")
    waits(one, "check ssl.ca.location under [kafka.client]")
    assert PASSWORD not in told(one)
    assert not stream.group.total()


def test_a_client_without_a_certificate_is_refused(stage):
    route = entry(stage, "ssl")
    for part in ("certificate", "key"):
        route["client"].pop(f"ssl.{part}.location")
    stream = filled(stage, "no-certificate", **route)
    one = stream.instance()
    waits(one, "SSL alert number")
    waits(one, "check ssl.certificate.location and ssl.key.location under [kafka.client]")
    assert not stream.group.total()


def test_a_password_in_a_missing_file_is_an_error_at_once(stage):
    route = entry(stage, "sasl_ssl") | {"client_files": {"sasl.password": str(stage.folder / "nowhere")}}
    stream = filled(stage, "missing-file", **route)
    checked = stream.instance().run("check")
    assert checked.returncode == 2
    assert "nowhere" in checked.stderr and "sasl.password" in checked.stderr

"""Both ends' pages over HTTP: who gets in, what is refused, what an answer never holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from wardround.client.page.site import HospitalSite
from wardround.client.refusals import MOST, RefusalBook, read_refusals
from wardround.server.dashboard.site import RunSite, RunsSite
from wardround.web.app import make_app
from wardround.web.door import Door
from wardround.web.site import Site

TOKEN = "a-token-for-tests-and-nothing-else"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def client_of(site: Site, **session: Any) -> TestClient:
    return TestClient(make_app(site, Door(TOKEN, lambda: 0.0)), follow_redirects=False, **session)


@pytest.fixture(params=["run", "runs", "hospital"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "hospital":
        ledger, policy, _ = request.getfixturevalue("books")
        return HospitalSite(ledger, policy)
    run = request.getfixturevalue("run")
    if request.param == "run":
        return RunSite(run.info)
    return RunsSite(lambda: {run.info.folder.name: run.info})


ALL = ("/", "/metrics", "/events", "/rounds/1", "/rounds/1.json", "/report.html", "/nothing",
       "/static/live.js", "/docs", "/openapi.json")  # fmt: skip


@pytest.mark.parametrize("path", ALL)
def test_without_a_token_nothing_is_shown(site: Site, path: str) -> None:
    client = client_of(site)
    for headers in ({}, {"cookie": "wardround=guessed"}, {"authorization": "Bearer wrong"}):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.text == "a token is needed\n"
    answer = client.get(path, headers={"accept": "text/html"})
    assert answer.status_code == 401
    assert '<form method="post" action="/login"' in answer.text


def test_login_gives_a_cookie_that_scripts_and_other_sites_cannot_use(site: Site) -> None:
    client = client_of(site)
    assert client.post("/login", data={"token": "wrong"}).status_code == 401
    answer = client.post("/login", data={"token": f" {TOKEN}\n"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    client.post("/logout")
    assert client.get("/").status_code == 401


def test_guessing_is_slowed(site: Site) -> None:
    client = client_of(site)
    codes = [client.post("/login", data={"token": str(n)}).status_code for n in range(7)]
    assert codes == [401] * 5 + [429] * 2
    answer = client.get("/", headers=BEARER)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"


def test_odd_logins_are_refused(site: Site) -> None:
    client = client_of(site)
    assert client.post("/login", content=b"x" * 5000).status_code == 413
    assert client.post("/login", content=b"\xff&=&token").status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_pages_can_only_be_read(site: Site, method: str) -> None:
    client = client_of(site)
    assert client.request(method, "/", headers=BEARER).status_code == 405
    assert client.request(method, "/metrics", headers=BEARER).status_code == 405


CLIMBING = (
    "/../run.json", "/..%2frun.json", "/%2e%2e/run.json", "/static/../door.py", "/run.json",
    "/static/..%2fdoor.py", "/rounds/..%2f..%2frun.json", "/rounds/0", "/rounds/01.json",
    "/rounds/1.json/..", "//etc/passwd", "/etc/passwd", "/rounds/99999999", "/dashboard.token",
    "/coordinator/signing.pem", "/secret-folder/../secret-folder/run.json", "/ledger/ledger.jsonl",
)  # fmt: skip


@pytest.mark.parametrize("path", CLIMBING)
def test_no_path_leads_out(site: Site, path: str) -> None:
    answer = client_of(site).get(path, headers=BEARER)
    assert answer.status_code == 404
    assert "There is no such page" in answer.text


def test_every_answer_has_strict_headers(site: Site) -> None:
    client = client_of(site)
    for path in (*ALL, "/login", "/health", "/static/style.css"):
        if path == "/events":
            continue  # it never ends; its headers come from the same place
        answer = client.get(path, headers=BEARER)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy or answer.headers["content-type"].startswith("text/html")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_no_answer_holds_a_path_or_a_secret(site: Site, tmp_path: Path) -> None:
    client = client_of(site)
    for path in (*ALL, *CLIMBING, "/secret-folder/", "/secret-folder/rounds/2", "/login"):
        if path == "/events":
            continue
        answer = client.get(path, headers=BEARER)
        said = answer.text + str(answer.headers)
        assert str(tmp_path) not in said
        assert TOKEN not in said
        assert "Traceback" not in said


def test_pages_stand_alone(site: Site) -> None:
    """Nothing inline that the policy would stop, nothing from elsewhere."""
    client = client_of(site)
    for path in ("/", "/secret-folder/", "/rounds/2"):
        page = client.get(path, headers=BEARER).text
        assert "style=" not in page
        assert "<style" not in page
        assert "http://" not in page
        assert "https://" not in page
        assert page.count("<script") <= 1


def test_a_run_says_who_answered_and_what_it_cost(run: Any) -> None:
    client = client_of(RunSite(run.info))
    page = client.get("/", headers=BEARER).text
    for said in ("discharge-letters", "4 of 6", "harbour", "3 of 3"):
        assert said in page
    assert "4 round records verified" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "5.0 s" in page  # two rounds to come at 2.5 s
    spent = run.report("north", 4)["epsilon_life"]
    assert f"{spent:.3f} of 8" in page
    two = client.get("/rounds/2", headers=BEARER).text
    assert "2 of 3" in two
    assert "no update" in two
    signed = json.loads(client.get("/rounds/2.json", headers=BEARER).text)
    assert signed["key"] == run.key.public
    assert client.get("/rounds/5", headers=BEARER).status_code == 404
    assert client.get("/report.html", headers=BEARER).status_code == 404


def test_the_report_page_may_style_itself_and_run_nothing(run: Any) -> None:
    (run.info.folder / "report.html").write_text("<style>p{}</style><script>1</script>")
    answer = client_of(RunSite(run.info)).get("/report.html", headers=BEARER)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert policy.endswith("sandbox")


def change_record(run: Any) -> None:
    path = run.info.folder / "rounds" / "0003.json"
    path.write_text(path.read_text().replace('"bytes_down":190000', '"bytes_down":190001'))


def sign_with_another_key(run: Any) -> None:
    run.key = type(run.key).generate()
    run.end_round(3)


def change_report(run: Any) -> None:
    """The coordinator signs a record with a report that the hospital never wrote."""
    real = run.hospitals["north"]
    run.hospitals["north"] = type(run.key).generate()
    run.end_round(3)
    run.hospitals["north"] = real


def cut_record(run: Any) -> None:
    (run.info.folder / "rounds" / "0003.json").write_bytes(b'{"key":')


def roll_back(run: Any) -> None:
    run.end_round(3, ledger_head={"seq": 2, "sha256": "0" * 64})


def move_record(run: Any) -> None:
    rounds = run.info.folder / "rounds"
    (rounds / "0003.json").write_bytes((rounds / "0002.json").read_bytes())


@pytest.mark.parametrize(
    "harm",
    [change_record, sign_with_another_key, change_report, cut_record, roll_back, move_record],
)
def test_what_does_not_verify_is_said(run: Any, harm: Callable[[Any], None]) -> None:
    site = RunSite(run.info)
    client = client_of(site)
    assert "does not verify" not in client.get("/", headers=BEARER).text
    before = site.stamp()
    harm(run)
    run.end_round(5)
    assert site.stamp() != before
    page = client.get("/", headers=BEARER).text
    assert "does not verify" in page
    assert "rounds/0003.json" in page
    assert str(run.info.folder) not in page
    assert "round 5" in page  # sound rounds are shown all the same
    problems = client.get("/metrics", headers=BEARER).text
    assert 'wardround_run_problems{run="letters-1"} 0.0' not in problems


def test_a_run_without_rounds_and_unreadable_scores(run: Any) -> None:
    for path in (run.info.folder / "rounds").iterdir():
        path.unlink()
    (run.info.folder / "metrics.jsonl").write_text("not JSON")
    page = client_of(RunSite(run.info)).get("/", headers=BEARER).text
    assert "No round has ended yet" in page
    assert "metrics.jsonl: cannot be read" in page


def test_coordinator_figures(run: Any) -> None:
    figures = samples(client_of(RunSite(run.info)).get("/metrics", headers=BEARER).text)
    ended = {"run": "letters-1"}
    assert figures["wardround_run_rounds_ended"] == [(ended, 4.0)]
    north = ended | {"hospital": "north"}
    assert (north, run.report("north", 4)["epsilon_life"]) in figures[
        "wardround_hospital_epsilon_life"
    ]
    harbour = ended | {"hospital": "harbour", "result": "none"}
    assert (harbour, 1.0) in figures["wardround_hospital_answers_total"]
    assert (ended | {"score": "kept"}, 0.96) in figures["wardround_run_score"]


def test_a_hospital_sees_every_charge_against_its_budget(books: Any) -> None:
    ledger, policy, _ = books
    page = client_of(HospitalSite(ledger, policy)).get("/", headers=BEARER).text
    for said in ("letters-run", "referrals-run", "10 × noise 1.5 on a sample of 0.1",
                 "signatures and witness agree", "not answered", "[budget] epsilon",
                 "Data set notes"):  # fmt: skip
        assert said in page
    figures = samples(client_of(HospitalSite(ledger, policy)).get("/metrics", headers=BEARER).text)
    notes = {"dataset": "notes", "unit": "record"}
    assert figures["wardround_ledger_charges_total"] == [(notes, 4.0)]
    assert figures["wardround_ledger_answers_total"] == [(notes, 3.0)]
    assert figures["wardround_ledger_epsilon_budget"] == [(notes, 4.0)]
    assert figures["wardround_ledger_sound"] == [({}, 1.0)]


def test_the_hospitals_epsilon_is_the_accountants(books: Any) -> None:
    from wardround.privacy.accountant import epsilon
    from wardround.privacy.events import Gaussian, PoissonSampled, Repeated

    ledger, policy, _ = books
    expected = epsilon(Repeated(PoissonSampled(0.1, Gaussian(1.5)), 40), 1e-5)
    figures = samples(client_of(HospitalSite(ledger, policy)).get("/metrics", headers=BEARER).text)
    ((_, found),) = figures["wardround_ledger_epsilon_spent"]
    assert found == pytest.approx(expected, rel=1e-9)  # the same events, the same accountant


def test_a_damaged_ledger_is_not_relied_on(books: Any) -> None:
    ledger, policy, _ = books
    lines = (ledger / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (ledger / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    client = client_of(HospitalSite(ledger, policy))
    page = client.get("/", headers=BEARER).text
    assert "Do not rely on these books" in page
    assert "it was cut or replaced by an older copy" in page
    assert str(ledger) not in page
    assert "wardround_ledger_sound 0.0" in client.get("/metrics", headers=BEARER).text


def test_a_hospital_page_works_without_policy_and_with_a_bad_one(books: Any) -> None:
    ledger, policy, _ = books
    assert "No policy file" in client_of(HospitalSite(ledger, None)).get("/", headers=BEARER).text
    policy.write_text("[budget]\nepsilon = -1\n")
    page = client_of(HospitalSite(ledger, policy)).get("/", headers=BEARER).text
    assert "Do not rely" in page
    assert str(policy.parent) not in page


def test_a_round_that_everybody_refused_is_shown_with_the_reasons(run: Any) -> None:
    site = RunSite(run.info)
    before = site.stamp()
    run.fail_round(5, "BudgetExceeded: no more <i>epsilon</i>")
    assert site.stamp() != before
    client = client_of(site)
    page = client.get("/", headers=BEARER).text
    assert "Round 5 of 6 failed; the run has ended." in page
    assert "The model is that of round 4" in page
    reason = "BudgetExceeded: no more &lt;i&gt;epsilon&lt;/i&gt;"
    assert page.count(reason) == 3 + 1  # one a hospital, and why the round failed
    assert "Do not rely" not in page
    path = "/rounds/failed-0005-0001.json"
    assert f'href="{path}"' in page
    signed = client.get(path, headers=BEARER).json()
    assert signed["record"]["failed"].startswith("round 5: no usable update")
    figures = samples(client.get("/metrics", headers=BEARER).text)
    assert figures["wardround_run_failures_total"][0][1] == 1
    assert figures["wardround_run_rounds_ended"][0][1] == 4
    run.end_round(5)
    page = client.get("/", headers=BEARER).text
    assert "Round 5 of 6 has ended." in page
    assert page.count(reason) == 3  # still among the refusals


@pytest.mark.parametrize("change", ["forged", "renamed", "moved"])
def test_a_failed_try_that_does_not_verify_is_not_shown(run: Any, change: str) -> None:
    run.fail_round(5, "BudgetExceeded: no more epsilon")
    folder = run.info.folder / "rounds"
    path = folder / "failed-0005-0001.json"
    if change == "forged":
        path.write_bytes(path.read_bytes().replace(b"no more", b"too few"))
    else:
        path.rename(folder / ("failed-0006-0001.json" if change == "renamed" else "0005.json"))
    page = client_of(RunSite(run.info)).get("/", headers=BEARER).text
    assert "Do not rely on what does not verify" in page
    assert "BudgetExceeded" not in page


def test_refusals_are_kept_and_shown(books: Any) -> None:
    ledger, policy, _ = books
    site = HospitalSite(ledger, policy)
    before = site.stamp()
    book = RefusalBook(ledger)
    book.note(3, "BudgetExceeded", "[budget] epsilon allows <b>4</b>")
    assert site.stamp() != before
    page = client_of(site).get("/", headers=BEARER).text
    assert "BudgetExceeded" in page
    assert "&lt;b&gt;4&lt;/b&gt;" in page


def test_the_file_of_refusals_stays_small(tmp_path: Path) -> None:
    book = RefusalBook(tmp_path)
    for number in range(MOST + 5):
        book.note(number, "BudgetExceeded", "x" * 5000)
    kept = read_refusals(tmp_path)
    assert kept[-1].round == MOST + 4
    assert len(kept) == MOST // 2 + 4
    assert all(len(refusal.reason) == 600 for refusal in kept)
    path = tmp_path / "refusals.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b'{"time": 1}\nnot JSON\n\xff\n' + path.read_bytes())
    assert read_refusals(tmp_path) == kept


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample of an exposition, by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found

"""The data of one person: given out, and forgotten."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import Api, app_on, empty_file, local
from tests.leads.test_merging import acts, merge, pairs, people, unmerge
from tests.postgres import connected, sql

SECRETS = ("Иван Тайный", "tg:secret-77", "+79995550101", "secret@example.com", "my secret message", "tg:old-78")
SECRETS += ("Old Name", "not-a-phone-secret")


def fill(api: Api) -> int:
    """Lead 1 and what it had merged: all that it said stands somewhere, also in the contacts of lead 2. Returns how
    many contacts lead 1 has then, all closed."""
    name, external_id, phone, email, message, old_id, old_name, no_phone = SECRETS
    api.source(weights={api.operator(max_load=100): 1})
    api.contact(1, external_id, lead_phone=phone, lead_name=name, message=message, event_id="e-1")
    api.contact(1, "tg:2", lead_name="Anna", message="hello", lead_email="anna@example.com")
    api.contact(1, old_id, lead_name=old_name, lead_email=email, message=message * 500)
    api.contact(1, external_id, lead_phone=no_phone, lead_email="anna@example.com")
    api.contact(1, "tg:2", lead_phone=phone, lead_email=email)
    merge(api, 3, 1)
    api.patch("/leads/1", {"phones": [], "external_ids": [external_id, old_id]})
    api.contact(1, "tg:2", lead_phone="not-a-phone")
    api.patch("/leads/1", {"phones": [phone]})
    contacts: list[int] = [contact["id"] for contact in api.get("/leads/1/contacts")]
    for contact_id in contacts:
        api.close(contact_id)
    return len(contacts)


def everything(database: str) -> str:
    """All tables as text."""
    with connected(database) as connection:
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        if not database.startswith("sqlite"):
            tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        names = connection.exec_driver_sql(tables).scalars().all()
        return json.dumps({name: str(connection.exec_driver_sql(f'SELECT * FROM "{name}"').all()) for name in names},
                          ensure_ascii=False)  # fmt: skip


def columns(database: str, table: str) -> set[str]:
    return {*sql(database, f"SELECT * FROM {table} LIMIT 1")[0]._mapping}


def filled(database: str, table: str, where: str) -> set[str]:
    """The columns that have a value in one of these rows."""
    rows = sql(database, f"SELECT * FROM {table} WHERE {where}")
    return {name for row in rows for name, value in row._mapping.items() if value is not None}


def test_a_parameter_that_forgetting_does_not_know_is_refused(api: Api) -> None:
    api.close(api.contact(api.source(weights={api.operator(): 1}), lead_name="Anna")["id"])
    assert api.post("/leads/1/forget?dry_run=true", expect=422)["detail"][0]["loc"] == ["query", "dry_run"]
    assert api.get("/leads/1")["name"] == "Anna"
    api.post("/leads/1/forget", expect=200)


def test_nothing_of_what_the_lead_said_is_left_and_what_was_done_stays(api: Api, database: str) -> None:
    contacts = fill(api)
    stored = everything(database)
    assert [secret for secret in SECRETS if secret not in stored] == []
    assert pairs(api)
    before = [api.get(path) for path in ("/stats/", "/stats/sources", "/stats/operators", "/events/")]
    histories = [api.get(f"/contacts/{number}")["history"] for number in range(1, 7)]
    lead = api.post("/leads/1/forget", expect=200)
    assert lead == api.get("/leads/1")
    assert (lead["is_forgotten"], lead["name"], lead["contacts_count"]) == (True, None, contacts)
    assert [lead[field] for field in ("external_ids", "phones", "emails")] == [[], [], []]
    assert acts(lead) == [("merged", 3, 1, 1), ("forgotten", 1, None, contacts)]
    assert {(contact["message"], contact["identity_note"]) for contact in lead["contacts"]} == {(None, None)}
    assert [api.get(path) for path in ("/stats/", "/stats/sources", "/stats/operators", "/events/")] == before
    assert [api.get(f"/contacts/{number}")["history"] for number in range(1, 7)] == histories
    seen = everything(database) + json.dumps([api.get(f"/leads/{number}/export") for number in (1, 2)])
    assert [secret for secret in SECRETS if secret in seen or json.dumps(secret)[1:-1] in seen] == []
    note = api.get("/contacts/5")["identity_note"]
    assert note == "lead_phone (forgotten) belongs to lead 1; lead_email (forgotten) belongs to lead 3"
    assert "'not-a-phone' is not a phone number" in api.get("/contacts/6")["identity_note"]
    assert pairs(api) == []
    assert api.get("/leads/2")["emails"] == ["anna@example.com"]
    # A repeat does not bring the person back; who writes anew is a new lead.
    again = api.contact(1, SECRETS[1], lead_name=SECRETS[0], message="again", event_id="e-1", expect=200)
    assert (again["id"], again["lead_id"], again["message"], again["lead"]["external_ids"]) == (1, 1, None, [])
    assert api.contact(1, SECRETS[1])["lead_id"] == 4


def test_a_lead_with_open_contacts_is_not_forgotten(api: Api) -> None:
    people(api, {"lead_name": "Ivan"}, {})
    api.contact(1, "tg:1")
    detail = api.post("/leads/1/forget", expect=409)["detail"]
    assert detail == "lead 1 has 2 open contacts, such as contact 1: close them first"
    api.close(1)
    assert "has 1 open contact, contact 3: close" in api.post("/leads/1/forget", expect=409)["detail"]
    api.close(3)
    assert api.get("/leads/1")["name"] == "Ivan"
    assert api.post("/leads/1/forget", expect=200)["acts"][0]["who"] == "without a key"
    for method, path, body in (("POST", "/leads/1/forget", None), ("PATCH", "/leads/1", {"name": "Ivan"})):
        assert api.call(method, path, body, expect=409)["detail"] == "lead 1 was forgotten"
    api.post("/leads/9/forget", expect=404)
    assert [lead["id"] for lead in api.get("/leads/")] == [1, 2]


def test_what_is_another_s_is_left_alone(api: Api) -> None:
    """Also where a value only looks like one of the lead's, or the lead's number is the begin of another's."""
    people(api, {"lead_phone": "89991234567"}, *({} for _ in range(8)), {"lead_phone": "89991234568"})
    note = api.contact(1, "tg:2", lead_phone="89991234568", lead_email="belongs to lead 1")["identity_note"]
    api.contact(1, "tg:10", lead_phone="tg:1")
    noted = [api.get(f"/contacts/{contact_id}")["identity_note"] for contact_id in (11, 12)]
    merge(api, 3, 4)
    api.close(1)
    api.post("/leads/1/forget", expect=200)
    assert api.get("/contacts/11")["identity_note"] == note == noted[0]
    assert api.get("/contacts/12")["identity_note"] == noted[1].replace("'tg:1'", "(forgotten)")
    assert pairs(api) == [(2, 10, [("phone", "+79991234568", 11)])]
    assert unmerge(api, 3)["external_ids"] == ["tg:3"]


def test_what_another_lead_s_merge_kept_of_it_is_gone_too(api: Api, database: str) -> None:
    """The phone was lead 1's when that was merged; then it was given to lead 3."""
    people(api, {"lead_phone": "89991234567"}, {}, {})
    merge(api, 1, 2)
    api.patch("/leads/2", {"phones": []})
    api.patch("/leads/3", {"phones": ["89991234567"]})
    api.close(3)
    assert "+79991234567" in str(sql(database, "SELECT identifiers FROM lead_act"))
    api.post("/leads/3/forget", expect=200)
    assert "+79991234567" not in everything(database)
    assert unmerge(api, 1)["external_ids"] == ["tg:1"]


def left_in(path: Path) -> list[str]:
    """What is found of the lead in the file and those beside it."""
    content = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    assert b"anna@example.com" in content
    return [secret for secret in SECRETS if secret.encode() in content]


def test_no_byte_is_left_in_the_file_after_a_checkpoint_and_a_vacuum(path: Path) -> None:
    with local(app_on(empty_file(path))) as client:
        fill(Api(client))
        assert left_in(path) == [*SECRETS]
        Api(client).post("/leads/1/forget", expect=200)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert left_in(path) == []  # the service overwrites what it deletes
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert left_in(path) == []


def test_no_log_line_says_what_the_lead_said(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fill(api)
    unmerge(api, 3)
    api.delete("/leads/1/duplicates/2")
    api.get("/leads/1/export")
    api.post("/leads/1/forget", expect=200)
    told = {record.message: vars(record).get("fields") for record in caplog.records}
    assert told["leads merged"] == {"lead_id": 3, "other_id": 1, "contacts": 1, "key_id": None}
    assert told["leads unmerged"] == told["leads merged"]
    assert told["leads told apart"] == {"lead_id": 1, "other_id": 2, "key_id": None}
    assert told["lead forgotten"] == {"lead_id": 1, "contacts": 2, "key_id": None}
    lines = json.dumps([str(vars(record)) for record in caplog.records], ensure_ascii=False)
    assert [secret for secret in SECRETS if secret in lines] == []


STAYS = {
    "lead": {"id", "created_at", "merged_into"},
    "contact": {"id", "created_at", "lead_id", "source_id", "operator_id", "status", "topic", "priority", "event_id",
                "assigned_at", "closed_at", "due_at", "is_sticky", "waits_since"},
}  # fmt: skip


def test_a_column_that_is_new_is_forgotten_too_unless_it_says_only_what_was_done(api: Api, database: str) -> None:
    """Who adds one to these tables fills it in `fill`, or adds it here."""
    fill(api)
    of_lead = {"lead": "id IN (1, 3)", "contact": "lead_id = 1"}
    before = {table: filled(database, table, where) for table, where in of_lead.items()}
    for table in of_lead:
        assert columns(database, table) - STAYS[table] <= before[table], table
    api.post("/leads/1/forget", expect=200)
    for table, where in of_lead.items():
        assert filled(database, table, where) == before[table] & STAYS[table], table


# --- export ----------------------------------------------------------------------------------------------------------


def test_the_export_has_all_that_is_stored_of_one_lead(api: Api, database: str) -> None:
    fill(api)
    document = api.get("/leads/1/export")
    assert document["lead"] == {
        field: value for field, value in api.get("/leads/1").items()
        if field not in ("contacts", "contacts_count", "acts", "is_forgotten")
    }  # fmt: skip
    assert [(lead["id"], lead["name"]) for lead in document["merged"]] == [(3, SECRETS[6])]
    for contact in document["contacts"]:
        shown = api.get(f"/contacts/{contact['id']}")
        assert {field: shown[field] for field in shown if field not in ("lead", "source", "operator")} == {
            field: value for field, value in contact.items() if field not in ("waits_since", "is_sticky")
        }
    assert [contact["id"] for contact in document["contacts"]] == [1, 3, 4]
    assert [each["contact_id"] for each in document["duplicates"]] == [4, 5, 5]
    assert [act["act"] for act in document["acts"]] == ["merged"]
    assert document["acts"][0]["moved"] == {"contacts": [3], "leads": [], "name": False}
    stored = everything(database)
    assert [secret for secret in SECRETS if secret not in json.dumps(document, ensure_ascii=False)] == []
    for table, exported in (
        ("lead", document["lead"]),
        ("lead", document["merged"][0]),
        ("contact", document["contacts"][0]),
        ("lead_act", document["acts"][0]),
    ):
        assert columns(database, table) <= {*exported, "merged_into"}, table
    assert re.search(SECRETS[7], stored)
    assert api.get("/leads/9/export", expect=404)["detail"] == "lead 9 not found"


def test_an_export_has_nothing_of_others(api: Api) -> None:
    people(api, {"lead_name": "Ivan"}, {"lead_name": "Anna", "message": "hers"})
    assert [text for text in ("Anna", "hers", "tg:2") if text in json.dumps(api.get("/leads/1/export"))] == []


def test_each_act_is_logged_with_what_it_was_about(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    for lead in ("tg:1", "tg:2"):
        api.contact(api.source(lead), lead)
    caplog.clear()
    merge(api, 2, 1)
    unmerge(api, 2)
    api.get("/leads/1/export")
    assert api.client.get("/contacts/export").status_code == 200
    said = [
        (record.getMessage(), record.__dict__["fields"]) for record in caplog.records if record.name == "crm.events"
    ]
    nobody = {"key_id": None}  # the service asks for none
    assert said == [
        ("leads merged", {"lead_id": 2, "other_id": 1, "contacts": 1, **nobody}),
        ("leads unmerged", {"lead_id": 2, "other_id": 1, "contacts": 1, **nobody}),
        ("lead exported", {"lead_id": 1, **nobody}),
        ("contacts exported", {"format": "csv", **nobody}),
    ]

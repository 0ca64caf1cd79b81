"""The memory store's own promises: shared by name, and able to be a store without conditional writes."""

from job.storage.memory import MemoryStore
from job.storage.store import open_store


def test_a_store_without_conditional_writes_overwrites_and_says_yes() -> None:
    store = MemoryStore(conditional=False)
    assert store.put_if_absent("k", b"1") is True
    assert store.put_if_absent("k", b"2") is True
    assert store.get("k") == b"2"


def test_a_name_is_one_store_and_another_name_another() -> None:
    open_store("memory://test-shared").put("k", b"1")
    assert open_store("memory://test-shared/").get("k") == b"1"
    assert open_store("memory://test-other").list("") == []

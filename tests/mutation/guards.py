"""The guards that a run's safety stands on, how each is taken away, and the test that then has to fail."""

from dataclasses import dataclass

UNIT, SIMULATED = "tests/unit", "tests/simulation/test_protocol.py::test_every_schedule_keeps_every_promise"


@dataclass(frozen=True)
class Guard:
    """`old` occurs exactly once in `file`; with `new` in its place the guard is gone."""

    file: str
    old: str
    new: str
    killer: str  # id of the test


GUARDS = {
    "a number is claimed by put-if-absent": Guard(
        "job/storage/attempts.py",
        "if store.put_if_absent(owner.key, record.dump()):",
        "if store.put(owner.key, record.dump()) is None:",
        f"{UNIT}/storage/test_attempts.py::test_a_listing_that_lags_behind_does_not_keep_a_claim_from_a_free_number",
    ),
    "of claims at the same moment one wins": Guard(
        "job/storage/attempts.py",
        "if store.put_if_absent(owner.key, record.dump()):",
        "if store.put(owner.key, record.dump()) is None:",
        f"{SIMULATED}[two begin at the same moment]",
    ),
    "a commit's record is put-if-absent": Guard(
        "job/storage/checkpoints.py",
        "if store.put_if_absent(key, record.dump()):",
        "if store.put(key, record.dump()) is None:",
        f"{UNIT}/storage/test_checkpoints.py::test_a_record_of_somebody_else_under_ones_own_key_is_an_error",
    ),
    "the result's record is put-if-absent": Guard(
        "job/publish.py",
        'if not store.put_if_absent(RESULT, result.model_copy(update={"files": files}).dump()):',
        'if store.put(RESULT, result.model_copy(update={"files": files}).dump()):',
        f"{UNIT}/test_publish.py::test_a_result_that_is_there_stays[memory]",
    ),
    "what makes a folder a run is put-if-absent": Guard(
        "job/settled.py",
        "if store.put_if_absent(RUN, record.dump()):",
        "if store.put(RUN, record.dump()) is None:",
        f"{UNIT}/test_settled.py::test_whoever_begins_second_at_the_same_moment_begins_nothing",
    ),
    "the record of the prepared rows is put-if-absent": Guard(
        "job/settled.py",
        "store.put_if_absent(key, PreparedRecord(",
        "store.put(key, PreparedRecord(",
        f"{SIMULATED}[two begin at the same moment]",
    ),
    "hashes are compared": Guard(
        "job/storage/checkpoints.py",
        "if target.stat().st_size == file.size and sha256(target) == file.sha256:",
        "if target.stat().st_size == file.size:",
        f"{UNIT}/storage/test_checkpoints.py::"
        "test_a_damaged_newest_commit_is_reported_and_the_one_before_used[memory-flip]",
    ),
    "ranks agree": Guard(
        "job/training/steps.py",
        "            dist.all_reduce(numbers, group=self._group)\n",
        "            pass\n",
        "tests/integration/test_agreement.py::test_a_stop_that_reaches_one_rank_only_ends_both_after_the_same_step",
    ),
    "a commit is read back before older ones go": Guard(
        "job/storage/pruning.py",
        "    except (DataError, StorageError) as error:\n"
        '        say(f"old checkpoints are kept: the newest commit, {newest}, does not read back: {error}")\n'
        "        return\n",
        "    except (DataError, StorageError):\n        pass\n",
        f"{UNIT}/storage/test_pruning.py::test_nothing_goes_behind_a_commit_that_does_not_read_back",
    ),
    "the fence stands before the result": Guard(
        "job/publish.py",
        "    check_fence(store, owner)\n    if not store.put_if_absent(RESULT",
        "    if not store.put_if_absent(RESULT",
        f"{UNIT}/test_publish.py::test_a_newer_attempt_that_comes_while_the_files_go_up_ends_it_without_a_result",
    ),
    "the fence stands before a commit's record": Guard(
        "job/storage/checkpoints.py",
        "    files = upload_folder(store, snapshot, folder)\n    check_fence(store, owner)\n",
        "    files = upload_folder(store, snapshot, folder)\n",
        f"{UNIT}/storage/test_checkpoints.py::test_a_newer_attempt_ends_a_commit_before_its_record",
    ),
    "the fence stands before a prune": Guard(
        "job/storage/pruning.py",
        "    check_fence(store, owner)\n    try:\n        back =",
        "    try:\n        back =",
        f"{UNIT}/storage/test_pruning.py::test_a_fenced_attempt_prunes_nothing",
    ),
    "the fence stands before run.json": Guard(
        "job/settled.py",
        "    check_fence(store, owner)\n    record = RunRecord(",
        "    record = RunRecord(",
        f"{UNIT}/test_settled.py::test_a_newer_attempt_ends_the_beginning",
    ),
    "a commit's files go up before its record": Guard(
        "job/storage/checkpoints.py",
        "        records.append(FileRecord(name=name, size=path.stat().st_size, sha256=sha256(path), crc64nvme=crc))\n"
        '        store.upload(path, f"{prefix}/{name}")\n'
        "    return records\n",
        "        records.append(FileRecord(name=name, size=path.stat().st_size, sha256=sha256(path), crc64nvme=crc))\n"
        "    return records\n",
        f"{SIMULATED}[one takes over]",
    ),
    "records go before their files": Guard(
        "job/storage/pruning.py",
        "            store.delete([key])\n"
        "            if folder is not None:\n"
        '                store.delete([entry.key for entry in store.list(f"{folder}/")])\n',
        "            if folder is not None:\n"
        '                store.delete([entry.key for entry in store.list(f"{folder}/")])\n'
        "            store.delete([key])\n",
        f"{UNIT}/storage/test_pruning.py::test_records_go_before_their_files",
    ),
    "commits of attempts that share a number are in the order of the fence": Guard(
        "job/storage/checkpoints.py",
        '(int(match[1]), match[3] or "", int(match[2]))',
        '(int(match[1]), int(match[2]), match[3] or "")',
        f"{SIMULATED}[two with the same number]",
    ),
    "attempts order before steps": Guard(
        "job/storage/checkpoints.py",
        '(int(match[1]), match[3] or "", int(match[2]))',
        '(int(match[2]), int(match[1]), match[3] or "")',
        f"{SIMULATED}[one takes over]",
    ),
    "a listing of commits is made fresh": Guard(
        "job/storage/checkpoints.py",
        "    store.put(PROBE, secrets.token_hex(8).encode())\n    return commit_keys(store)",
        "    return commit_keys(store)",
        f"{SIMULATED}[a reader whose listing is stale]",
    ),
    "what vanishes under a reader is looked for in a new list": Guard(
        "job/storage/checkpoints.py",
        "            if key not in vanished:\n",
        "            if False:\n",
        f"{SIMULATED}[a reader while the owner commits and prunes]",
    ),
    "a snapshot is renamed into place": Guard(
        "job/training/snapshot.py",
        '    partial = target.with_name(f".{target.name}")\n',
        "    partial = target\n",
        f"{UNIT}/training/test_snapshot.py::test_a_kill_at_any_moment_of_writing_leaves_no_folder_that_looks_whole",
    ),
}

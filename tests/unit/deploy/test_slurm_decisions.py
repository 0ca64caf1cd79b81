"""What the batch script does after a life of the job: for every exit code, and whatever else may be the case."""

import pytest

from job.deploy.rules import ANY_OTHER, RULES, Rule
from job.errors import ExitCode
from tests.batching import SHIPPED, Desk

CODES = [*((int(code), rule) for code, rule in RULES.items()), (1, ANY_OTHER), (139, ANY_OTHER), (143, ANY_OTHER)]
ASKED = {
    Rule.DONE: [],
    Rule.NEVER: [],
    Rule.AGAIN: ["scontrol requeue"],
    Rule.COUNTED: ["scontrol requeue"],
    Rule.ELSEWHERE: ["scontrol requeue", "scontrol update"],
}


def test_every_exit_code_has_a_rule() -> None:
    assert set(RULES) == set(ExitCode)


@pytest.mark.parametrize(("code", "rule"), CODES)
def test_each_exit_code_is_followed_by_what_its_rule_says(desk: Desk, code: int, rule: Rule) -> None:
    life = desk.live("run.yaml", CODE=str(code))
    assert life.code == code and life.asked == ASKED[rule], life.log
    assert life.decision.startswith(f"exit {code} (")
    counted = [".sft-job-7.retries"] if rule in (Rule.COUNTED, Rule.ELSEWHERE) else []
    assert desk.left == counted
    if rule not in (Rule.DONE, Rule.AGAIN):
        assert life.decision.endswith(f"reason of {code}")
    assert [call[2:] for call in life.called("scontrol", "requeue")] == [["7"]] * len(
        life.called("scontrol", "requeue")
    )


def test_the_leaders_code_counts_and_not_the_highest_of_all_nodes(desk: Desk) -> None:
    life = desk.live("run.yaml", CODE="69", NODE="1", SRUN_CODE="75")
    assert life.code == 69 and life.asked == ["scontrol requeue", "scontrol update"]


def test_where_the_run_leaves_no_word_sruns_own_code_counts(desk: Desk) -> None:
    assert desk.live("run.yaml", CODE="78", SILENT="1").decision == "exit 78 (config): not run again: srun left with 78"
    killed = desk.live("run.yaml", SILENT="1", KILLED="1")
    assert killed.code == 137 and killed.asked == ["scontrol requeue"]
    assert killed.decision == "exit 137 (other): requeued, retry 1 of 3: srun left with 137"


def test_a_word_that_an_earlier_life_left_is_not_this_ones(desk: Desk) -> None:
    (desk.folder / ".sft-job-7-0.exit").write_text("65\n0\nold\n")
    assert desk.live("run.yaml", CODE="74", SILENT="1").code == 74


def test_a_srun_that_leaves_well_is_no_end_of_the_run(desk: Desk) -> None:
    """As srun does when Slurm gives up a node."""
    life = desk.live("run.yaml", SILENT="1")
    assert life.code == 70 and life.asked == ["scontrol requeue"]
    assert "srun left with 0, but no sft-job said that it is done" in life.decision


def test_a_failure_that_stays_is_given_up_with_its_reason_last(desk: Desk) -> None:
    for retry in (1, 2):
        life = desk.live("run.yaml", CODE="70", SFT_JOB_RETRIES="2")
        assert life.decision == f"exit 70 (crashed): requeued, retry {retry} of 2: reason of 70"
    assert len((desk.folder / ".sft-job-7.retries").read_text().splitlines()) == 2
    life = desk.live("run.yaml", CODE="70", SFT_JOB_RETRIES="2")
    assert life.code == 70 and life.asked == [] and desk.left == []
    assert life.decision == "exit 70 (crashed): given up after 2 of 2 retries: reason of 70"


def test_a_life_that_lasted_until_a_planned_stop_begins_the_count_anew(desk: Desk) -> None:
    desk.live("run.yaml", CODE="70")
    desk.live("run.yaml", CODE="75")
    assert "retry 1 of 3" in desk.live("run.yaml", CODE="74").decision


@pytest.mark.parametrize("code", ["143", "138"])
def test_a_stop_that_came_before_the_run_could_hear_it_spends_no_retry_and_gives_none_back(
    desk: Desk, code: str
) -> None:
    desk.live("run.yaml", CODE="70")
    life = desk.live("run.yaml", SILENT="1", CODE=code)
    assert life.code == 75 and life.asked == ["scontrol requeue"]
    assert life.decision == (
        f"exit 75 (stopped): requeued: it was stopped (srun left with {code}) before sft-job listened"
    )
    assert "retry 2 of 3" in desk.live("run.yaml", CODE="70").decision


def test_stops_that_no_run_ever_hears_do_not_go_on_for_ever(desk: Desk) -> None:
    lives = [desk.live("run.yaml", SILENT="1", CODE="143") for _ in range(11)]
    assert [life.asked for life in lives] == [*([["scontrol requeue"]] * 10), []]
    assert lives[-1].code == 75 and "not run again, as 10 lives before were no better: it was" in lives[-1].decision
    assert desk.left == []
    desk.live("run.yaml", SILENT="1", CODE="143")
    desk.live("run.yaml", CODE="75")
    assert desk.left == [], "a life that went on counts anew"


def test_what_cannot_be_counted_is_not_tried_again(desk: Desk) -> None:
    life = desk.live("run.yaml", CODE="70", SFT_JOB_COUNT_FILE="/nowhere/count")
    assert life.code == 70 and life.asked == [] and "cannot be counted" in life.decision


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PREEMPTED", "TIMEOUT"])
@pytest.mark.parametrize("code", ["75", "70", "69"])
def test_a_cancelled_job_stays_cancelled(desk: Desk, state: str, code: str) -> None:
    desk.states(f"{state} 0")
    life = desk.live("run.yaml", CODE=code)
    assert life.asked == [] and life.code == int(code) and desk.left == []
    assert f"left to Slurm, where the job is {state}: reason of {code}" in life.decision


@pytest.mark.parametrize("code", ["75", "70", "69", "76"])
def test_a_script_whose_job_runs_elsewhere_by_now_leaves_that_alone(desk: Desk, code: str) -> None:
    count = desk.folder / ".sft-job-7.retries"
    count.write_text("of the other\n")
    desk.states("RUNNING 1")
    life = desk.live("run.yaml", CODE=code)
    assert life.asked == [] and count.read_text() == "of the other\n", life.log


def test_a_later_life_knows_itself(desk: Desk) -> None:
    desk.states("RUNNING 3")
    assert desk.live("run.yaml", CODE="75", SLURM_RESTART_COUNT="3").asked == ["scontrol requeue"]


def test_a_busy_controller_is_asked_again(desk: Desk) -> None:
    desk.states("away", "away", "RUNNING 0")
    life = desk.live("run.yaml", CODE="75")
    assert life.asked == ["scontrol requeue"] and len(life.called("squeue")) == 3


def test_a_controller_that_stays_away_ends_it_within_a_bound(desk: Desk) -> None:
    desk.states("away")
    life = desk.live("run.yaml", CODE="75")
    assert life.asked == [] and len(life.called("squeue")) < 100 and "UNKNOWN" in life.decision


def test_a_requeue_that_is_said_to_have_failed_but_did_not_is_no_refusal(desk: Desk) -> None:
    desk.states("RUNNING 0", "COMPLETING 0")
    life = desk.live("run.yaml", CODE="75", REFUSED="timed out")
    assert life.asked == ["scontrol requeue"] and life.decision == "exit 75 (stopped): requeued"


def test_only_the_task_of_an_array_is_queued_again(desk: Desk) -> None:
    desk.job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    life = desk.live("run.yaml", CODE="70")
    assert life.called("scontrol", "requeue") == [["scontrol", "requeue", "5_2"]]
    assert desk.left == [".sft-job-5_2.retries"]


def test_what_is_left_of_the_job_that_it_was_submitted_from_is_not_taken_for_its_own(desk: Desk) -> None:
    left = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2", "SLURM_RESTART_COUNT": "3", "SQUEUE_STATES": "PD"}
    life = desk.live("run.yaml", CODE="75", ABOUT="JobId=7 JobName=chat ArrayTaskId=9 Restarts=0 x", **left)
    assert life.called("scontrol", "requeue") == [["scontrol", "requeue", "7"]]
    assert not {*left} & {*desk.environment()}
    own = "JobId=7 ArrayJobId=6 ArrayTaskId=4 JobName=chat Restarts=1 x"
    desk.states("RUNNING 1")
    life = desk.live("run.yaml", CODE="75", ABOUT=own, **left)
    assert life.called("scontrol", "requeue") == [["scontrol", "requeue", "6_4"]]
    assert desk.environment()["SLURM_ARRAY_TASK_ID"] == "4" and desk.environment()["SLURM_RESTART_COUNT"] == "1"


def test_the_node_of_the_cause_is_left_out_beside_those_that_were(desk: Desk) -> None:
    life = desk.live("run.yaml", CODE="69", NODE="2", EXCLUDED="n9")
    assert life.called("scontrol", "update") == [["scontrol", "update", "JobId=7", "ExcNodeList=n9,n3"]]
    assert "node n3 is left out from now on" in life.log
    last = desk.live("run.yaml", CODE="69", NODE="2", SFT_JOB_RETRIES="1")
    assert "left out" not in last.log and "given up" in last.decision and last.asked == []


def test_a_list_that_is_refused_while_the_job_ends_is_given_again(desk: Desk) -> None:
    life = desk.live("run.yaml", CODE="69", UPDATES="3", EXCLUDED="(null)")
    assert life.called("scontrol", "update") == 4 * [["scontrol", "update", "JobId=7", "ExcNodeList=n1"]]


def test_where_requeueing_is_refused_a_job_follows_with_the_options_of_this_one(desk: Desk) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    life = desk.live(
        "run.yaml", "--set", "x=a b", text=text, CODE="70", REFUSED="is disabled", SFT_JOB_SBATCH="--hint=a -x b"
    )
    assert life.code == 70
    assert (
        life.decision
        == "exit 70 (crashed): requeueing is refused here, so job 4711 goes on, retry 1 of 3: reason of 70"
    )
    (call,) = life.called("sbatch")
    script = str(desk.folder / "slurm_script")
    assert call[-7:] == ["--hint=a", "-x", "b", script, "run.yaml", "--set", "x=a b"]
    options = set(call[1 : call.index("--hint=a")])
    log = str(desk.folder / "log")
    assert options == {
        *("--parsable", "--dependency=afterany:7", "--nodes=1", "--job-name=chat", "--time=1:00:00", "--partition=gpu"),
        *("--constraint=[a|b]", "--exclude=n9", "--cpus-per-task=8", "--gpus-per-node=2", "--mem=4000"),
        f"--output={log}",
    }
    environment = desk.environment("follow-up-environment")
    assert not [name for name in environment if name.startswith("SLURM_")]
    assert environment["SFT_JOB_COUNT_FILE"] == str(desk.folder / ".sft-job-7.retries")
    desk.job["SLURM_JOB_ID"] = "4711"
    assert (
        "retry 2 of 3"
        in desk.live("run.yaml", CODE="70", SFT_JOB_COUNT_FILE=environment["SFT_JOB_COUNT_FILE"]).decision
    )


def test_a_job_that_follows_asks_for_all_gpus_and_their_cpus_where_this_one_did(desk: Desk) -> None:
    del desk.job["SLURM_GPUS_PER_NODE"], desk.job["SLURM_CPUS_PER_TASK"]
    told = {"SLURM_GPUS": "a100:4", "SLURM_CPUS_PER_GPU": "6"}
    (call,) = desk.live("run.yaml", CODE="75", REFUSED="is disabled", **told).called("sbatch")
    assert {"--gpus=a100:4", "--cpus-per-gpu=6"} <= set(call)
    assert not [word for word in call if word.startswith(("--gres", "--gpus-per", "--cpus-per-task"))]


def test_a_job_that_follows_an_arrays_task_is_that_task(desk: Desk) -> None:
    desk.job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    del desk.job["SLURM_GPUS_PER_NODE"]
    (call,) = desk.live("run.yaml", CODE="69", NODE="1", REFUSED="is disabled", EXCLUDED="n9").called("sbatch")
    assert {"--array=2", "--dependency=afterany:5_2", "--gres=gpu:a100:2", "--exclude=n9,n2"} <= set(call)


def test_where_no_job_may_follow_either_both_answers_are_told(desk: Desk) -> None:
    life = desk.live("run.yaml", CODE="75", REFUSED="is disabled", NO_SBATCH="1")
    assert life.code == 75
    assert "neither requeued (is disabled) nor submitted (sbatch: error: not from here)" in life.decision

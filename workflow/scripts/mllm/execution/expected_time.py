"""What a job that never ran here may take, from its sizes: for the estimate of a run, not for its limits.

Times with nothing to do, and per step and row, are those of the demonstration and of benchmarks/README.md on 2 cores.
"""

TOKENS = 106  # of a review, in the mean: 85 words
CORE_FLOPS = 8e10  # of a CPU core, single precision: predictions of GPT-2 reach 9.7e10, trainings of MiniLM 6.8e10
GPU_FLOPS = 5e12  # of the slowest GPU that is worth waiting for
STEP = 0.05  # seconds of a training's step, beside its arithmetic
DISK = 200.0  # MB a second
EMPTY = {
    "prepare_base": 4.0, "train_expert": 3.0, "train_tasks": 3.0, "predict": 3.0, "merge": 1.5, "merge_tasks": 2.0, "mix_experts": 4.0, "fit_baseline": 3.0,
    "describe_reviews": 3.0, "diagnose_members": 2.0, "score": 3.0, "write_report": 4.0, "export": 10.0,
}  # fmt: skip
"""Rule -> seconds of a job with almost nothing to do; of other rules 1."""
ROW = {"clean_reviews": 2e-5, "split_reviews": 5e-6, "describe_reviews": 3.5e-5, "tfidf": 1e-3}
"""Rule or baseline -> seconds of each review."""
SCORE = 5e-6  # seconds of each review and candidate


def seconds(
    rule: str, *, rows: int, operations: float = 0.0, steps: float = 0.0, mb: float = 0.0, cores: int = 1, gpus: int = 0
) -> float:
    """Seconds of one job.

    Args:
        rule: whose job it is, or the baseline that it fits.
        rows: reviews; of ``score`` times candidates.
        operations: floating-point operations of the model.
        steps: of a training.
        mb: read and written weights.
        cores: that it computes with, unless it has GPUs.
        gpus: that it has.
    """
    speed = gpus * GPU_FLOPS or cores * CORE_FLOPS
    each = SCORE if rule == "score" else ROW.get(rule, 0.0)
    empty = EMPTY.get("fit_baseline" if rule in ("tfidf", "majority") else rule, 1.0)
    return empty + operations / speed + steps * STEP + mb / DISK + rows * each

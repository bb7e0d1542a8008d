# Shared by all rules: the experiment, its grid, paths, resources.
# in:  the experiment file (--configfile, else config/config.yaml) and --config overrides
# out: EXPERIMENT, GRID, the path variables <results> and <logs>, helper functions
import functools
import hashlib
import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

SCRIPTS = Path(workflow.basedir, "workflow/scripts")
# Paths of scripts in rules, and of files in experiments, start at the project's root.
if Path("workflow/scripts").resolve() != SCRIPTS.resolve():
    sys.exit(f"error: the working directory is {Path.cwd()}, expected the project's root. Fix: cd {workflow.basedir}")
sys.path.insert(0, str(SCRIPTS))
from mllm.execution import snakemake_speed

snakemake_speed.collect_less_garbage()  # first: the other imports make many objects

from mllm.core import compute
from mllm.core.code_digest import code_digest
from mllm.core.errors import Failure
from mllm.core.wording import without_markdown
from mllm.evaluation import planning
from mllm.execution import data_notes, environment, estimate, expected_time, interrupts, local_limits, log_format
from mllm.execution import (
    resources as needs,
    retraining,
    reviews_meaning,
    run_lock,
    slurm_executor,
    slurm_resources,
    snakemake_patches,
    stage_times,
    warm,
)
from mllm.experiment import grid, revision_locks, yaml_files
from mllm.experiment.load import load as load_experiment
from mllm.merging import methods
from mllm.models import families
from mllm.models.hub import commit_of

code_digest = functools.cache(code_digest)  # a grid of thousands of points needs a few digests

environment.use_this_python()
environment.speak_utf8()
environment.let_waiting_threads_sleep()
environment.use_scratch()
interrupts.before_jobs()
snakemake_speed.keep_function_parameters()
snakemake_speed.remember_producers()
snakemake_speed.describe_jobs_once()
snakemake_speed.ask_for_storage_directly()
snakemake_speed.ask_no_parameters_for_environments()
snakemake_speed.make_wildcards_once()
snakemake_speed.check_names_once()
snakemake_speed.leave_paths_unmodified()
snakemake_speed.compare_outputs_as_text()
snakemake_speed.look_again_where_held_back()
BY_MEANING = snakemake_patches.let_ancient_inputs_be()

local_limits.install(workflow)

# Read here, not by Snakemake, which keeps the last of duplicate keys and mixes the default file into another one.
CONFIG_FILES = [os.path.relpath(f) for f in workflow.config_settings.configfiles] or ["config/config.yaml"]
OVERRIDE = yaml_files.typed(dict(workflow.config_settings.config))
DELETE = bool(OVERRIDE.pop("delete", False))  # whether `snakemake prune` deletes what it shows


try:
    EXPERIMENT = load_experiment(*CONFIG_FILES, override=OVERRIDE)
    EXPERIMENT = revision_locks.pin(EXPERIMENT, CONFIG_FILES[0], commit_of)
    GRID = grid.build(EXPERIMENT)
except Failure as error:
    sys.exit(f"error: {error}")  # an exception would show Snakemake's own frame and line numbers
STARTED = time.time()
RUNS = Path(".snakemake")  # where Snakemake keeps its records of earlier runs
RESULTS = f"results/{EXPERIMENT.name}"
PARTS = (["imports"] if EXPERIMENT.candidates else ["data", "models", "merge"]) + ["predict", "compare"]
run_lock.look_at_lock(RUNS)


# For `--sdm apptainer`, built from envs/mllm.def; otherwise jobs use the Python that runs Snakemake.
container: "envs/mllm.sif"


# `snakemake --report report.zip`: Snakemake's own report, with the results that rules mark.
report: "../report/workflow.rst"


pathvars:
    results=RESULTS,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",


TRAINED_TASKS = sorted({GRID.candidates[name].whole for name in GRID.made_by("train_tasks")})


def names(*kinds):
    """Return the names of the candidates of some kinds."""
    return [c.name for c in GRID.of_kind(*kinds)]


def one_of(words):
    """Return a wildcard constraint: one of the words; without words, nothing matches."""
    return "|".join(map(re.escape, words)) or "(?!)"


def other_than(words):
    """Return a wildcard constraint: any name except the words, of a folder or of a file with one of our endings."""
    return rf"(?!(?:{one_of(words)})(?:/|\.(?:parquet|cost\.json)$|$))[^/]+"


def candidate_of(wildcards):
    """Return a job's candidate, if it has one; for a model over several tasks, the first task's."""
    values = dict(wildcards)
    name = values.get("candidate") or values.get("expert") or values.get("merge") or whole_of(values)
    return GRID.candidates.get(name) or next(iter(GRID.wholes.get(name, {}).values()), None)


def whole_of(wildcards):
    """Return the model over several tasks that a job predicts with: its name and run, which files' names separate."""
    values = dict(wildcards)
    return values["whole"] + values.get("run", "") if "whole" in values else None


def task_of(wildcards):
    """Return the task of a candidate or of a prepared checkpoint."""
    return (candidate_of(wildcards) or GRID.starts[wildcards.start]).task


def reads(*splits):
    """Return an input function: the tables of some splits, and their labels in the job's task."""
    return lambda wildcards: by_meaning({**tables(*splits), **labels_of(task_of(wildcards))})


def reads_tasks(*splits):
    """Return an input function: the tables of some splits, and their labels in all tasks of a model over several."""

    def files(wildcards):
        labels = {
            f"{what}_{i}": file
            for i, task in enumerate(GRID.wholes[wildcards.whole])
            for what, file in labels_of(task).items()
        }
        return by_meaning({**tables(*splits), **labels})

    return files


def by_meaning(files):
    """Return inputs whose rebuilding makes no job stale: a parameter of the job has the digest of their meaning."""
    return {name: ancient(file) for name, file in files.items()} if BY_MEANING and GRID.starts else files


def reviews(*columns):
    """Return the digest of what determines the split's rows and some columns; empty for imported predictions."""
    if not GRID.starts:
        return ""
    stratum = definition(EXPERIMENT.tasks[0]) if EXPERIMENT.split.mode == "random" else ""
    key = ("reviews", *columns)
    if key not in KNOWN:
        scripts = [*MADE_BY.get(EXPERIMENT.data.source, []), "clean_reviews", "split_reviews"]
        KNOWN[key] = reviews_meaning.digest(EXPERIMENT, columns, scripts, stratum, RUNS / "mllm-contents.json")
    return KNOWN[key]


def labelled(task, *columns):
    """Return the digest of what determines a task's labels and some columns; empty for imported predictions."""
    if not GRID.starts:
        return ""
    key = ("labelled", task.name, *columns)
    if key not in KNOWN:
        followed = reviews(column_of(task), *columns), definition(task), code_digest("label_reviews")
        KNOWN[key] = digest_of(*followed)
    return KNOWN[key]


def learns(wildcards):
    """Return the digest of what determines a job's reviews, including columns of its expert's or members' slices."""
    candidate = candidate_of(wildcards)
    members = (
        [GRID.candidates[name] for name in candidate.members] if candidate and candidate.method == "router" else []
    )
    columns = {column for c in [candidate, *members] if c for column in sliced_by(c.part)}
    return labelled(EXPERIMENT.task(task_of(wildcards)), *sorted(columns))


def learns_tasks(wildcards):
    """Return these digests for a training on several tasks: their labels, and the columns of their experts' slices."""
    return [
        labelled(EXPERIMENT.task(task), *sorted(sliced_by(part)))
        for task, part in candidate_of(wildcards).part["tasks"].items()
    ]


def sliced_by(part):
    """Return the columns that select a training's reviews."""
    return {column for one in part.get("union", [part]) for column in one.get("where", {})}


def column_of(task):
    """Return the column that a task's labels are made of."""
    return task.column or {"sentiment": "rating"}.get(task.label, task.label)


def tables(*splits):
    return {split: f"{RESULTS}/data/{split}.parquet" for split in splits}


def labels_of(task):
    folder = f"{RESULTS}/data/tasks/{task}"
    return {"labels": f"{folder}/labels.parquet", "facts": f"{folder}/task.json"}


def all_labels():
    return [file for task in EXPERIMENT.tasks for file in labels_of(task.name).values()]


def worded(wildcards):
    """Return the option with the classes' names for models that read them; empty for a classifier."""
    start, task = start_from(wildcards), EXPERIMENT.task(task_of(wildcards))
    words = task.classes if start.model.prompt else None
    return f"--names {shlex.quote(json.dumps(list(words)))}" if words else ""


def worded_tasks(wildcards):
    """Return this option for several tasks: task -> names."""
    tasks = [t for t, part in GRID.wholes[wildcards.whole].items() if part.start.model.prompt]
    words = {task: list(EXPERIMENT.task(task).classes) for task in tasks if EXPERIMENT.task(task).classes}
    return f"--names {shlex.quote(json.dumps(words))}" if words else ""


def checkpoint_of(wildcards):
    """Return the folder that a prepared base is made from; for a base from scratch, the train reviews."""
    folder = made_from(GRID.starts[wildcards.start].model)
    return {"checkpoint": folder} if folder else by_meaning(tables("train"))


def pretrained_here(wildcards):
    """Return whether making a base is a training: language modelling of a model from scratch."""
    return bool(getattr(GRID.starts[wildcards.start].model, "pretrain", None))


def taken_from(wildcards):
    return made_from(candidate_of(wildcards).taken)


def made_from(model):
    if model.source == "hub":
        return f"results/downloads/models/{model.id}/{model.revision}"
    return model.path if model.source == "local" else None


def start_from(wildcards):
    """Return the prepared checkpoint that a job makes, or that its candidate starts from."""
    return candidate_of(wildcards).start if candidate_of(wildcards) else GRID.starts[wildcards.start]


def tokens_of(wildcards):
    """Return the tokens of a prediction; rebuilt tokens are the same and rerun nothing. Published models have none."""
    start = candidate_of(wildcards).start.name
    return {"tokens": tokens_file(start)} if start in GRID.starts else {}


def tokens_file(start):
    return ancient(f"{RESULTS}/data/tokens/{start}.json")


def model_of(wildcards):
    """Return the weights to predict with. A merge's rebuilt weights rerun no prediction: its parents determine them."""
    candidate = candidate_of(wildcards)
    folder = f"{RESULTS}/{candidate.folder}"
    return by_meaning({"model": folder}) if candidate.recipe else {"model": folder}


def parents_of(wildcards):
    """Return the models that determine a merge's weights; empty for other candidates."""
    candidate = candidate_of(wildcards)
    models = [*bases_of(candidate), *candidate.members] if candidate.recipe else []
    return [f"{RESULTS}/models/{model}" for model in models]


def made_as(wildcards):
    """Return the digest of what determines a merge's weights besides its parents; empty for other candidates."""
    candidate = candidate_of(wildcards)
    recipe = candidate.recipe
    code = merge_code(recipe.method, bool(candidate.whole)) if recipe else ""
    return digest_of(code, compute.version("mergekit"), recipe.canonical()) if recipe else ""


def digest_of(*values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def start_of(wildcards):
    """Return the prepared checkpoint that a training, a merge or a published expert starts from."""
    return f"{RESULTS}/models/{candidate_of(wildcards).start.name}"


def starts_of_tasks(wildcards):
    """Return task -> the prepared checkpoint that a model over several tasks starts from."""
    return {task: part.start.name for task, part in GRID.wholes[wildcards.whole].items()}


def base_to_fit(wildcards):
    """Return the base that a published expert must fit, so that it can be merged; a reference needs none."""
    return {"base": start_of(wildcards)} if candidate_of(wildcards).kind == "expert" else {}


def members_of_merge(wildcards):
    return [f"{RESULTS}/models/{m}" for m in GRID.merges[wildcards.merge].members]


def wholes(*kinds):
    """Return the names of models over several tasks, of some kinds; without experts that also answer other tasks."""
    return [
        name for name, parts in GRID.wholes.items() if name not in GRID.candidates and first_part(parts).kind in kinds
    ]


def first_part(parts):
    """Return the candidate of the first task that a model over several tasks covers."""
    return next(iter(parts.values()))


def parts_of_merge(merge):
    """Return task -> {base, members} of a merge over several tasks."""
    parts = GRID.wholes[merge]
    return {
        task: {
            "base": GRID.bases[task],
            "members": [m for m in part.members if GRID.candidates[m].task == task],
        }
        for task, part in parts.items()
    }


def bases_of(candidate):
    """Return the prepared checkpoints that a merge starts from: one for each task that it covers."""
    return [GRID.bases[task] for task in candidate.covers] or [candidate.start.name]


def bases_of_merge(wildcards):
    return [f"{RESULTS}/models/{base}" for base in bases_of(candidate_of(wildcards))]


def covered_together():
    """Return tasks -> the models that cover them, by the names of their first runs."""
    found = {}
    for name in wholes("merge", "reference"):
        part = first_part(GRID.wholes[name])
        if part.replicate == 1:
            found.setdefault(part.covers, []).append(name)
    return dict(sorted(found.items()))


def several(name, number):
    """Return the name of one of several copies of a rule; the first has the plain name, and all have its group."""
    found, groups = f"{name}_{number + 1}" if number else name, workflow.group_settings.overwrite_groups
    if name in groups:
        groups[found] = groups[name]
    return found


def passes(wildcards):
    """Return how often a model over several tasks reads the reviews: a classifier once, a prompted model per task."""
    candidate = candidate_of(wildcards)
    return 1 if candidate.start.model.family == families.HEADED else len(candidate.covers)


def whole_model_of(wildcards):
    """Return the folder to predict with, which has a folder for each task; a merge's parents determine its content."""
    folder = {"model": str(Path(f"{RESULTS}/{candidate_of(wildcards).folder}").parent)}
    return by_meaning(folder) if candidate_of(wildcards).recipe else folder


def task_reads(covers):
    """Return an input function: a model's reviews, with their labels in several tasks, and the examples' reviews."""

    def read(wildcards):
        starts = {task: part.start for task, part in GRID.wholes[whole_of(wildcards)].items()}
        prompts = [start.model.prompt for start in starts.values()]
        train = ["train"] if any(prompt and prompt.examples for prompt in prompts) else []
        labels = {f"{kind}_{i}": file for i, task in enumerate(covers) for kind, file in labels_of(task).items()}
        # A classifier reads the reviews of all tasks at once, so that no single base's tokens fit.
        tokens = {f"tokens_{i}": tokens_file(starts[task].name) for i, task in enumerate(covers) if any(prompts)}
        return {**by_meaning({**tables(*train, "valid", "test"), **labels}), **tokens}

    return read


def learns_together(wildcards):
    """Return the digests of what determines the reviews of all tasks that a model covers."""
    return " ".join(labelled(EXPERIMENT.task(task)) for task in candidate_of(wildcards).covers)


def asked_together(wildcards):
    """Return task -> the classes' names, for prompted models only, and the path of the predictions."""
    return {
        task: {
            "names": list(words) if (words := EXPERIMENT.task(task).classes) and part.start.model.prompt else None,
            "output": f"{RESULTS}/predictions/{part.name}",
        }
        for task, part in GRID.wholes[whole_of(wildcards)].items()
    }


def asked_otherwise(wildcards):
    """Return the option with another task's prompt, for experts that also answer tasks other than their own."""
    candidate = candidate_of(wildcards)
    if candidate.made_by != "predict":
        return ""
    return f"--prompt {shlex.quote(candidate.start.model.prompt.model_dump_json())}"


def first_layers(wildcards):
    """Return the option with the number of unchanged first layers, whose states base, experts and merges share."""
    candidate = candidate_of(wildcards)
    number = frozen_layers(candidate) if candidate.start.model.family == families.HEADED else 0
    return f"--first-layers {number}" if number else ""


def frozen_layers(candidate):
    """Return the number of first layers that no training of a candidate or its members changed."""
    if candidate.members:
        return min(frozen_layers(GRID.candidates[member]) for member in candidate.members)
    if candidate.kind == "base":
        return max((e.hyper.get("freeze", 0) for e in GRID.of_kind("expert")), default=0)
    return candidate.hyper.get("freeze", 0)


def members_by_task():
    """Return task -> {base, members}: the experts (first replicate) that are members of merges.

    Only tasks with two or more such experts count. The members of merges over several tasks are one more entry, without
    their heads.
    """
    merged = {member for recipe in GRID.merges.values() for member in recipe.members}
    experts = [c for c in GRID.of_kind("expert") if c.name in merged and c.replicate == 1]
    experts = sorted(experts, key=lambda c: c.name)
    found = {task: [c.name for c in experts if c.task == task] for task in GRID.bases}
    compared = {task: {"base": GRID.bases[task], "members": names} for task, names in found.items() if len(names) > 1}
    tasks = sorted({task for c in GRID.of_kind("merge") for task in c.covers})
    members = sorted({m for c in GRID.of_kind("merge") if c.covers and c.replicate == 1 for m in c.members})
    across = {", ".join(tasks): {"base": GRID.bases[tasks[0]], "members": members, "heads": False}} if tasks else {}
    return compared | across


def members_of(wildcards, ending):
    return [f"{RESULTS}/predictions/{m}.{ending}" for m in candidate_of(wildcards).members]


def slices_of(wildcards):
    """Return the option with each member's slice, for routers; empty for other candidates."""
    candidate = candidate_of(wildcards)
    if candidate.method != "router":
        return ""
    return f"--where {shlex.quote(json.dumps([GRID.candidates[m].part['where'] for m in candidate.members]))}"


GPUS_HERE = local_limits.gpus()


def gpu(wildcards):
    """Return the GPUs that a job requests: its model's; a local job requests them only if this machine has GPUs."""
    return gpus_of(wildcards) if slurm_resources.submits(workflow) or GPUS_HERE else 0


def gpus_of(wildcards):
    """Return the number of GPUs for a candidate's training and predictions; making the base needs one."""
    candidate = candidate_of(wildcards)
    return candidate.gpus if candidate else 1


def by_attempt(amount):
    """Return a resource that doubles with each attempt; the amount is a number or a function of wildcards."""

    def grown(wildcards, attempt):
        return (amount(wildcards) if callable(amount) else amount) * 2 ** (attempt - 1)

    return grown


KNOWN = {}  # values from files, which a grid of thousands of points would read thousands of times


def rows():
    """Return the best current estimate of the number of reviews."""
    path = f"{RESULTS}/data/split.json"
    key = ("rows", os.path.exists(path))
    if key not in KNOWN:
        KNOWN[key] = needs.review_rows(EXPERIMENT.data, Path(path))
    return KNOWN[key]


def shape(start=next(iter(GRID.starts.values()), None)):
    """Return the size of a prepared checkpoint (default: a base); before it exists, the size of its source."""
    folders = [f for f in (f"{RESULTS}/models/{start.name}", made_from(start.model)) if f]
    key = ("shape", start.name, *map(os.path.exists, folders))
    if key not in KNOWN:
        KNOWN[key] = needs.shape_of([Path(f) for f in folders], start.model)
    return KNOWN[key]


def tokens(candidate):
    """Return the number of tokens that a training reads."""
    hyper = candidate.hyper
    reviews = hyper["steps"] * hyper["batch_size"] if "steps" in hyper else hyper["epochs"] * rows()
    tasks = 1 if "steps" in hyper else len(candidate.part.get("tasks", [1]))
    return tasks * reviews * needs.TOKENS


def merge_code(method, of_tasks=False):
    """Return the digest of a merge's code; this project's methods have a module each, mergekit's have none here."""
    if method == "moe":
        return code_digest("mix_experts")
    return code_digest("merge_tasks" if of_tasks else "merge", *methods.modules(method))


def family_code(start):
    """Return the module of a prepared checkpoint's family, which its jobs load by name."""
    return families.module(start.model.family)


def shape_of(wildcards):
    """Return the size of a job's model; a mixture of experts is at most as large as all of its members."""
    candidate = candidate_of(wildcards)
    size = shape(candidate.start)
    return size.times(len(candidate.members)) if candidate.method == "moe" else size


def train_mb(wildcards):
    candidate = candidate_of(wildcards)
    frozen, tasks = {"freeze", "head_only"} & candidate.hyper.keys(), len(candidate.part.get("tasks", [1]))
    return gpus_of(wildcards) * needs.train_mb(shape_of(wildcards), tasks * rows(), bool(frozen))


def train_gpu_mb(wildcards):
    candidate = candidate_of(wildcards)
    batch = candidate.hyper["batch_size"] // candidate.gpus
    return needs.train_gpu_mb(shape(candidate.start), batch, candidate.start.model.max_length)


def predict_gpu_mb(wildcards):
    asked = candidate_of(wildcards).start.model.family != families.HEADED
    return needs.predict_gpu_mb(shape_of(wildcards), gpus_of(wildcards), asked)


def disk_mb():
    """Return the disk space, in MB, that the experiment's models need in results/; 0 for imported predictions."""
    if not GRID.starts:
        return 0
    own = [GRID.candidates[name].start for name in GRID.made_by("train_expert", "take_expert")]
    own += [next(iter(GRID.wholes[name].values())).start for name in TRAINED_TASKS]
    trained = [shape(start) for start in [*GRID.starts.values(), *own]]
    return needs.disk_mb(trained, shape(), len(GRID.merges), EXPERIMENT.keep == "all")


FAILED = "Finished results are kept. Fix the error above and rerun the same command."


def start_run():
    """Prepare a run before its first job; the run already has the lock."""
    run_lock.note_owner(RUNS, workflow.local_exec)
    interrupts.while_jobs_run(workflow)
    if not workflow.deployment_settings.deployment_method:  # jobs use this Python's libraries
        if folder := warm.use_in_this_run():
            snakemake_patches.measure_warm_jobs(functools.partial(warm.usage, folder))
            snakemake_speed.look_at_no_warm_jobs(functools.partial(warm.started, folder))
    print(announcement(), file=sys.stderr)


def announcement():
    """Return the messages before a run's first job: finished models that it retrains or renames, time, disk, power."""
    return "\n".join(filter(None, [retrained(), renamed(), str(planned()), power()]))


def power():
    """Return what the experiment's first task can show; empty before texts are counted, or without merges."""
    texts = planning.expected_texts(EXPERIMENT.data, EXPERIMENT.split, Path(RESULTS), rows())
    if not texts or not planned().jobs or not GRID.of_kind("merge"):
        return ""
    task = EXPERIMENT.tasks[0].name
    texts = planning.test_texts(Path(RESULTS), task) or texts
    noise = planning.pilot(Path(RESULTS), task) or planning.assumed()
    return planning.line(noise, texts, EXPERIMENT.compare.margin)


def expected(job):
    """Return the expected seconds of a planned job, by its sizes."""
    what, candidate = job.name, candidate_of(job.wildcards)
    facts = {"rows": rows(), "cores": job.threads, "gpus": job.resources.get("gpu") or 0}
    if what in ("train_expert", "train_tasks"):
        size, longest = shape(candidate.start), candidate.start.model.max_length
        several = 1 if "steps" in candidate.hyper else max(1, len(candidate.part.get("tasks", ())))
        reviews = several * rows() * 2 // 3
        facts |= expected_time.training(candidate.hyper, candidate.part, size, reviews, longest)
    elif what == "predict" or what.startswith("predict_tasks"):
        times = passes(job.wildcards) if what != "predict" else 1
        longest = candidate.start.model.max_length
        facts["operations"] = times * expected_time.prediction(shape_of(job.wildcards), rows() // 3, longest)
        what = "predict"
    elif what == "prepare_base" and pretrained_here(job.wildcards):
        model = GRID.starts[job.wildcards.start].model
        facts["steps"] = model.pretrain.steps
        facts["operations"] = 6 * shape().matrices * model.pretrain.steps * model.pretrain.batch_size * model.max_length
    elif what in ("merge", "merge_tasks", "mix_experts"):
        facts["mb"] = (len(candidate.members) + 2) * shape(candidate.start).mb
    elif what == "fit_baseline":
        what = candidate.method
    elif what == "score":
        facts["rows"] *= len(GRID.candidates)
    return expected_time.seconds(what, **facts)


def retrained():
    finished = Path(RESULTS, "experiment.yaml")
    return retraining.warning(workflow.dag, EXPERIMENT, finished, planned())


def renamed():
    """Return which planned trainings are finished under another name."""
    jobs = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.name == "train_expert"]
    trained = [candidate_of(job.wildcards) for job in jobs]
    return retraining.taken_over(trained, {*GRID.candidates, *GRID.starts}, Path(RESULTS, "models"))


def planned():
    """Return the estimate of the planned jobs' time and disk space, computed once."""
    if "planned" not in KNOWN:
        said = None if workflow.dryrun else workflow.resource_settings.cores  # 1 in every dry run
        here = not slurm_resources.submits(workflow)
        cores, gpus = (said or local_limits.cores(), len(local_limits.gpus())) if here else (0, 0)
        KNOWN["planned"] = estimate.plan(workflow.dag, Path(RESULTS, "benchmarks"), disk_mb(), cores, gpus, expected)
    return KNOWN["planned"]


def trained_alike(wildcards, input):
    """Option: models that a training may take over, as where its expert is renamed. A function of the input, as above."""
    name = dict(wildcards).get("expert") or wildcards.whole
    found = [] if workflow.dryrun else retraining.same(name, candidate_of(wildcards), Path(RESULTS, "models"))
    return f"--same {shlex.join(map(str, found))}" if found else ""


def what_jobs_took(wildcards, input):
    """Times of the jobs so far, for the report. A function of the input: no report is stale because a job took longer."""
    return "{}" if workflow.dryrun else json.dumps(stage_times.taken(Path(RESULTS)))


def farewell():
    """Return a run's last messages: leaderboard, verdict and exported models, if this run made them."""
    board, verdict, models = (Path(RESULTS, name) for name in ("leaderboard.txt", "verdict.md", "export"))
    lines = []
    if made_now(verdict):
        lines += ["", board.read_text(encoding="utf-8"), without_markdown(verdict.read_text(encoding="utf-8"))]
        lines += data_notes.data_notes(Path(RESULTS))
        lines.append(f"Report: {RESULTS}/report/index.html. Tables: {RESULTS}/*.csv")
    if made_now(models):
        lines += ["", "Complete and checked models. Publish one with its command:"]
        lines += [f"  hf upload OWNER/NAME {model}" for model in sorted(models.iterdir()) if model.is_dir()]
    return "\n".join(lines)


def definition(task):
    """Return what determines a task's labels: not its name, its classes' names, their order, or its prompt."""
    values = task.model_dump(exclude_none=True, exclude={"name", "ordered", "prompt"})
    values |= {"classes": dict(enumerate(task.classes.values()))} if task.classes else {}
    return json.dumps(values | {"name": "stratum"})


def wheres(task):
    """Return expert -> slice of the reviews, for a task's experts."""
    return json.dumps({e.name: e.where for e in EXPERIMENT.experts if e.where and EXPERIMENT.task_of(e) == task})


def predict_reads(wildcards):
    """Return the reviews to predict, and the train reviews if the prompt shows examples."""
    prompt = start_from(wildcards).model.prompt
    return reads(*(["train"] if prompt and prompt.examples else []), "valid", "test")(wildcards)


def look_at_files(raw, columns):
    """Find wrong columns, and slices and classes without reviews, before any job, if the files exist."""
    data = EXPERIMENT.data
    trained = [GRID.candidates[name] for name in GRID.made_by("train_expert")]
    slices = {c.name: c.part["where"] for c in trained if "where" in c.part and not Path(RESULTS, c.folder).exists()}
    new = [t for t in EXPERIMENT.tasks if t.classes and not Path(labels_of(t.name)["facts"]).exists()]
    classes = {task.name: (column_of(task), task.classes) for task in new}
    if data.source == "local" or (data.source == "uci" and slices):
        from mllm.data.first_look import look

        look(raw, columns, getattr(data, "quotes", "csv") == "csv", slices, classes)


def made_now(path):
    """Return whether a file or folder exists and this run made it."""
    return path.exists() and path.stat().st_mtime >= STARTED


log_format.install(GRID, planned, announcement, RUNS)
slurm_executor.install(RESULTS, disk_mb)

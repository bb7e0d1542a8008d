"""Merge by Breadcrumbs; entries elect a sign, as in TIES."""

from mllm.merging.methods.breadcrumbs import middling
from mllm.merging.task_vectors import TaskVectorMerge, spec_like

METHOD = TaskVectorMerge(spec_like("breadcrumbs_ties", "breadcrumbs_ties"), middling, True)

"""Merge by DARE as in its paper; entries elect a sign, as in TIES."""

from mllm.merging.methods.dare_linear_paper import dropped
from mllm.merging.task_vectors import TaskVectorMerge, spec_like

METHOD = TaskVectorMerge(spec_like("dare_ties", "dare_ties_paper"), dropped, True)

"""Import mergekit's methods, which merges call tensor by tensor."""

from mergekit import sparsify as sparsify
from mergekit.merge_methods import merge_state_dicts as merge_state_dicts
from mergekit.merge_methods import registry as registry
from mergekit.merge_methods.base import BasePolicy as BasePolicy
from mergekit.merge_methods.base import GroupMergeMethod as GroupMergeMethod
from mergekit.merge_methods.base import InputContract as InputContract
from mergekit.merge_methods.base import MergeMethod as MergeMethod
from mergekit.merge_methods.base import MergeMethodSpec as MergeMethodSpec
from mergekit.merge_methods.base import ParameterScope as ParameterScope
from mergekit.merge_methods.base import ParameterSpec as ParameterSpec
from mergekit.merge_methods.base import TensorGroup as TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import get_mask as get_mask
from mergekit.sparsify import RescaleNorm as RescaleNorm

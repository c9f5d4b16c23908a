"""What a stem makes of images before it scatters them: logarithms, and differences of channels."""
from typing import Any, Dict, List, Mapping, Optional

import torch
from torch import Tensor, nn

from ..scattering import geometry, transform
from ..wording import brief

PARTS = 1 << 40                 # of 1, in which a state dict tells the floor: a whole number, which keeps its value


class Inputs(nn.Module):
    """Images (B, C, H, W) to what is scattered, (B, colours, H, W).

    A state dict tells with which of the two it was learned, if with any, and is refused by a stem with others: shapes
    alone would not tell.

    Args:
        in_chans, channel_differences, log_input: as for `ScatteringStem`.
    """

    setting: Tensor

    def __init__(self, in_chans: int, channel_differences: bool, log_input: float,
                 device: Optional[torch.device] = None) -> None:
        super().__init__()
        geometry.switch('channel_differences', channel_differences)
        floor: Any = repr(log_input) if isinstance(log_input, bool) else log_input      # True is not 1 here
        self.channel_differences = bool(channel_differences)
        self.log_input = geometry.number('log_input', floor, 0, 1, '0, for no logarithm, or a floor of at most 1')
        self.takes_log = self.log_input > 0             # torch.compile asks a number anew at every size
        self.leaves_alone = not (self.channel_differences or self.takes_log)
        self.colours = 2 * in_chans - 1 if self.channel_differences else in_chans
        if not self.leaves_alone:
            self.register_buffer('setting', torch.empty(2, dtype=torch.int64, device=device))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """What the state dict tells of both, as it is at the start."""
        if not self.leaves_alone:
            self.setting.copy_(torch.tensor(self._setting()))

    def _setting(self) -> List[int]:
        return [int(self.channel_differences), round(PARTS * self.log_input)]

    def forward(self, x: Tensor) -> Tensor:
        if self.leaves_alone:
            return x
        transform.check_dtype(x)                        # a logarithm and a difference would hide what it is
        if self.takes_log:
            x = torch.log(x.clamp(min=0) + self.log_input)
        if self.channel_differences:
            x = torch.cat([x, x[:, :-1] - x[:, 1:]], 1)
        return x

    def why_not(self, state_dict: Mapping[str, Tensor], prefix: str) -> str:
        """In one sentence why what was learned with other inputs is refused; '' if it was with these."""
        found = state_dict.get(f'{prefix}setting')
        if found is not None and found.is_meta:                 # it has no value to differ by
            return ''
        if found is not None and found.dtype != torch.int64:
            return f'expected int64 for {prefix}setting, got {found.dtype}'
        theirs = [0, 0] if found is None else found.flatten()[:2].tolist()
        if theirs == self._setting():
            return ''
        differences, floor = bool(theirs[0]), f'{theirs[-1] / PARTS:g}'
        return (f'expected weights with channel_differences={self.channel_differences} and log_input='
                f'{self.log_input:g}, as the model has them, got {brief(differences, 20)} and {brief(floor, 20)}')

    def _load_from_state_dict(self, state_dict: Dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f'{prefix}setting' in state_dict:            # else it is strict loading that asks for it
            why = self.why_not(state_dict, prefix)
            if why:
                args[-1].append(why)
                self.reset_parameters()

    def extra_repr(self) -> str:
        return '' if self.leaves_alone else \
            f'channel_differences={self.channel_differences}, log_input={self.log_input:g}'

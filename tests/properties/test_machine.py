"""Whatever is done with a model, in whatever order, it computes with the filters that it has now, and says so.

After each step the coefficients are compared with the definition (`reference`) on filters that are made afresh from the
stored values (`present`): a filter, a matrix or a program that was kept too long shows.
"""

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

import scat_zoo
from scat_zoo import ScatteringTorch2D
from scat_zoo.models.build import checkpoint_filter_fn

from . import draws, present
from .use import BOOL, MODES, SIZES, Use


class Model(Use):
    """A scat_linear."""

    pruned = False

    @initialize(options=draws.kinds(), J=st.integers(1, 2), several=BOOL, rotation=st.sampled_from([None, 'average']),
                size=st.sampled_from(SIZES), seed=st.integers(0, 9))
    def make(self, options, J, several, rotation, size, seed):
        torch.manual_seed(seed)
        self.kwargs = {'J': J, 'L': 2, 'in_chans': 2, 'scales': [2, 1] if several and J == 2 else None,
                       'rotation': rotation}
        self.kind, self.options = options.get('parametrization', 'pixelwise'), options
        self.classes, self.grid = 3, tuple(side >> J for side in size)
        model = scat_zoo.scat_linear(num_classes=3, img_size=size, **self.kwargs, **options)
        self.begin(model, options.get('learnable', False), bool(options), (2, 2, *size))

    def size(self):
        channels = len(self.scattering.channels)
        head = channels * self.grid[0] * self.grid[1] * self.classes + self.classes
        return 2 * channels + head + (self.number() if self.learnable else 0)

    def number(self):
        return present.number(self.scattering.bank, self.kind, self.options)

    @rule(hold=BOOL)
    def hold_classifier(self, hold):
        self.model.freeze_classifier() if hold else self.model.unfreeze_classifier()
        rest = {name for name, _ in self.model.named_parameters()} - self.of_filters()
        self.held = self.held | rest if hold else self.held - rest

    @precondition(lambda self: not self.pruned)
    @rule(classes=st.integers(0, 4))
    def reset_classifier(self, classes):
        self.model.reset_classifier(classes)
        self.classes = classes
        self.held = {name for name in self.held if not name.startswith('head.fc.')}

    @rule(size=st.sampled_from(SIZES), mode=MODES)
    def set_input_size(self, size, mode):
        with mode():
            self.model.set_input_size(size)

    @rule(level=st.integers(0, 2))
    def prune(self, level):
        """Down to the features of a level, without the classifier."""
        if level < self.model.num_levels:
            self.model.prune_intermediate_layers([level])
            self.classes, self.pruned = 0, True
            self.held &= {name for name, _ in self.model.named_parameters()}
            self.learnable = self.learnable and bool(self.of_filters())

    @rule(mode=MODES)
    def to_pixelwise(self, mode):
        if self.scattering.bank.kind == 'pixelwise':
            return
        frozen = self.mode() == 'frozen'
        with self.keeps_filters(0.01 if self.dtype == torch.bfloat16 else 1e-6):
            with mode():
                self.scattering.to_pixelwise()
        self.held = {name for name in self.held if not name.startswith('scattering.')}
        if frozen:
            self.held |= self.of_filters()
        self.kind, self.stored, self.options = 'pixelwise', True, {}

    @precondition(lambda self: not self.pruned)
    @rule(learnable=BOOL)
    def load_into_another(self, learnable):
        """Of the same kind, that learns or not."""
        with self.keeps_filters(1e-6):
            options = {key: value for key, value in self.options.items() if key not in ('init', 'frozen_filters')}
            twin = scat_zoo.scat_linear(
                num_classes=self.classes, img_size=self.own_size(), pool_grid=self.grid, dtype=self.dtype,
                **self.kwargs, **{**options, 'parametrization': self.kind, 'learnable': learnable,
                                  'frozen_filters': self.stored})
            twin.load_state_dict(checkpoint_filter_fn(self.model.state_dict(), twin))
            self.put(twin)
            self.learnable, self.stored, self.held = learnable, self.stored or learnable, set()

    @rule(enable=BOOL)
    def checkpoint_gradients(self, enable):
        self.model.set_grad_checkpointing(enable)

    @rule()
    def init_weights(self):
        self.model.init_weights()


class Transform(Use):
    """A `ScatteringTorch2D`."""

    @initialize(J=st.integers(1, 3), order=st.integers(1, 2), learnable=BOOL, size=st.sampled_from(SIZES))
    def make(self, J, order, learnable, size):
        S = ScatteringTorch2D(J, size, L=2, max_order=order, learnable=learnable)
        self.begin(S, learnable, True, (2, 1, *size))

    def mode(self):
        mode = super().mode()
        return 'fixed' if mode == 'frozen' and present.is_analytic(self.scattering.bank) else mode

    def size(self):
        return self.number() if self.learnable else 0

    def number(self):
        return present.number(self.model.bank, 'pixelwise', {})

    @rule(order=st.integers(1, 2))
    def set_max_order(self, order):
        before = self.of_filters()
        held = self.learnable and before <= self.held
        self.model.max_order = order
        if held:
            self.held |= self.of_filters()

    @rule()
    def reset_parameters(self):
        self.model.reset_parameters()
        assert present.is_analytic(self.model.bank)

    @rule(learnable=BOOL)
    def load_into_another(self, learnable):
        with self.keeps_filters(1e-6):
            S = self.model
            twin = ScatteringTorch2D(S.J, S.shape, L=S.L, max_order=S.bank.max_order, learnable=learnable,
                                     dtype=self.dtype)
            twin.load_state_dict(S.state_dict())
            twin.max_order = S.max_order
            self.put(twin)
            self.learnable, self.held = learnable, set()


TestModel = Model.TestCase
TestTransform = Transform.TestCase
TestModel.settings = TestTransform.settings = settings(max_examples=settings.default.max_examples // 2)

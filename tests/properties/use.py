"""What people do with any module that scatters, as rules of a machine, and what has to be true after each of them."""
import contextlib
import copy
import io
import pickle
import threading

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import scat_zoo
from scat_zoo import ScatteringTorch2D

from . import present, reference

SIZES = [(8, 8), (9, 12), (20, 18)]
BOOL = st.booleans()
# In which modes of autograd things are done.
MODES = st.sampled_from([contextlib.nullcontext, torch.inference_mode, torch.no_grad, torch.enable_grad])
ERRORS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 0.03}      # of the largest coefficient


class Use(RuleBasedStateMachine):
    """Of a model and its part `scattering`, which is the whole for `ScatteringTorch2D`.

    What has to be true of it is kept in `learnable` (whether filters are parameters), `stored` (whether the state dict
    has them) and `held` (names of parameters that require no gradient).
    """

    compiled = optimiser = None
    compiled_calls = 0
    dtype = torch.float32

    def begin(self, model, learnable, stored, shape):
        self.model, self.learnable, self.stored, self.shape, self.held = model, learnable, stored, shape, set()

    @property
    def scattering(self):
        return self.model if isinstance(self.model, ScatteringTorch2D) else self.model.scattering

    def of_filters(self, model=None):
        """Names of the filters among the parameters."""
        stem = self.scattering
        return {name for name, p in self.model.named_parameters() if any(p is mine for mine in stem.parameters())}

    def images(self, seed=0):
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)).to(self.dtype)

    @contextlib.contextmanager
    def keeps_filters(self, error=0.):
        before = present.flat(self.filters(self.own_size()))
        yield
        for a, b in zip(before, present.flat(self.filters(self.own_size())), strict=True):
            assert (a - b).abs().max() <= error * a.abs().max()

    def filters(self, size):
        return present.filters_of(self.scattering.bank, size)

    def own_size(self):
        return self.scattering.bank.image_size

    def put(self, model):
        """Go on with another model."""
        self.model, self.compiled, self.optimiser = model, None, None

    # ---- rules ----

    @rule(learnable=st.sampled_from([True, True, False]), mode=MODES)
    def set_learnable(self, learnable, mode):
        with self.keeps_filters():
            self.held -= self.of_filters()
            with mode():
                self.scattering.set_learnable(learnable)
            self.stored = self.stored or learnable
            self.learnable = learnable and self.number() > 0

    @precondition(lambda self: self.learnable)
    @rule(learnable=BOOL)
    def hold_filters(self, learnable):
        with self.keeps_filters():
            freeze = getattr(self.model, 'unfreeze_scattering' if learnable else 'freeze_scattering', None)
            freeze() if freeze else self.model.requires_grad_(learnable)
            self.held = self.held - self.of_filters() if learnable else self.held | self.of_filters()

    @rule(draw=st.integers(0, 99), requires_grad=BOOL)
    def switch_one(self, draw, requires_grad):
        named = list(self.model.named_parameters())
        if named:
            name, p = named[draw % len(named)]
            p.requires_grad_(requires_grad)
            self.held = self.held - {name} if requires_grad else self.held | {name}

    @rule(dtype=st.sampled_from(list(ERRORS)))
    def to(self, dtype):
        # Of the offsets of wavelets in half precision little is left.
        with self.keeps_filters(0.3 if torch.bfloat16 in (dtype, self.dtype) else 1e-6):
            self.model.to(dtype)
            self.dtype = dtype

    @rule(how=st.sampled_from([copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), copy.copy]))
    def copied(self, how):
        with self.keeps_filters():
            self.put(how(self.model))

    @rule()
    def copied_by_torch(self):
        with self.keeps_filters():
            file = io.BytesIO()
            torch.save(self.model, file)
            file.seek(0)
            self.put(torch.load(file, weights_only=False))

    @rule(factor=st.floats(0.5, 2), assign=BOOL)
    def load(self, factor, assign):
        state = {key: value * factor if value.is_floating_point() and 'limit' not in key else value
                 for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(state, assign=assign)

    @rule(draw=st.integers(0, 999))
    def load_nonsense(self, draw):
        state = copy.deepcopy(self.model.state_dict())
        wrong = [key for key in state if 'bank.' in key and key.endswith(('hat', 'theta', 'sigma'))]
        if wrong:
            with self.keeps_filters():
                for value in state.values():
                    value.mul_(1.5) if value.is_floating_point() else None
                state[wrong[draw % len(wrong)]].view(-1)[0] = float('nan')
                with pytest.raises(RuntimeError, match='not finite'):
                    self.model.load_state_dict(state)

    @rule(draw=st.integers(0, 999), edit=st.sampled_from(present.EDITS), factor=st.floats(0.5, 2))
    def edit(self, draw, edit, factor):
        places = present.stored(self.scattering.bank)
        if places:
            edit(*places[draw % len(places)], factor)

    @rule(momentum=st.sampled_from([0, 0.9]))
    def build_optimiser(self, momentum):
        groups = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(groups, lr=0.01, momentum=momentum) if groups else None

    @precondition(lambda self: self.optimiser is not None)
    @rule(zero=BOOL)
    def step(self, zero):
        """Of an optimiser that may be older than what is learned now."""
        with self.keeps_filters() if self.mode() != 'learnable' else contextlib.nullcontext():
            if zero:
                self.optimiser.zero_grad()
            s = self.model(self.images(2))
            if s.requires_grad:
                (s / s.detach().norm().clamp(min=1)).square().sum().backward()
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.)
            self.optimiser.step()

    @precondition(lambda self: self.mode() == 'learnable')
    @rule()
    def stop_learning(self):
        """Of filters that are held nothing is left in the optimiser's hands."""
        optimiser = torch.optim.SGD(self.scattering.parameters(), lr=0.1)
        self.scattering(self.images(3)).square().sum().backward()
        self.set_learnable(False, contextlib.nullcontext)
        with self.keeps_filters():
            optimiser.step()

    @rule(training=BOOL)
    def train(self, training):
        self.model.train(training)

    @rule(engine=BOOL)
    def use_engine(self, engine):
        scat_zoo.use_engine(engine)

    @rule()
    def empty_cache(self):
        scat_zoo.empty_cache()

    @rule(side=st.sampled_from(SIZES), count=st.integers(1, 3))
    def other_images(self, side, count):
        if self.scattering is not self.model:               # the other one has a size
            self.shape = (count, *self.shape[1:-2], *side)

    @rule(mode=MODES, half=BOOL, seed=st.integers(0, 3), threads=st.integers(1, 2))
    def call(self, mode, half, seed, threads):
        torch.set_num_threads(threads)
        x = self.images(seed)
        with mode(), torch.autocast('cpu', torch.bfloat16, enabled=half):
            self.check(self.scattering(x), x)

    @rule(meanwhile=BOOL)
    def backward(self, meanwhile):
        """As the plain way's, also if what a pass backward may use is given up before."""
        x, gradients = self.images().requires_grad_(), []
        wanted = [x, *(p for p in self.scattering.parameters() if p.requires_grad)]
        for engine in (True, False):
            with scat_zoo.use_engine(engine):
                s = self.scattering(x)
                self.check(s, x)
                if meanwhile:
                    scat_zoo.empty_cache()
                    self.scattering(self.images(1)[:1])
                gradients.append(torch.autograd.grad(s.double().sum(), wanted, allow_unused=True))
        for a, b in zip(*gradients, strict=True):
            assert (a is None) == (b is None)
            assert a is None or (a - b).norm() <= 10 * ERRORS[self.dtype] * b.norm() + 1e-6

    @rule()
    def call_in_a_thread(self):
        x, found = self.images(), []
        thread = threading.Thread(target=lambda: found.append(self.scattering(x)))
        thread.start()
        thread.join()
        self.check(found[0], x)

    @rule()
    def call_with_other_values(self):
        """As `torch.func` does, without a trace of it left."""
        x, stem = self.images(), self.scattering
        other = copy.deepcopy(stem)
        values = {name: p.detach() * 1.5 for name, p in stem.named_parameters()}
        with torch.no_grad():
            for name, p in other.named_parameters():
                p.copy_(values[name])
        found = torch.func.functional_call(stem, values, (x,))
        self.check(found, x, present.filters_of(other.bank, self.shape[-2:]))

    @precondition(lambda self: self.compiled_calls < 3)     # each takes as long as twenty other steps
    @rule()
    def call_compiled(self):
        """Once compiled, it is kept, whatever happens to the module."""
        self.compiled_calls += 1
        if self.compiled is None:
            torch.compiler.reset()                          # it would stop after eight modules
            self.compiled = torch.compile(self.scattering, backend='eager')
        x = self.images()
        self.check(self.compiled(x), x)

    # ---- what has to be ----

    @invariant()
    def computes_with_what_it_has(self):
        x = self.images(1)
        with torch.no_grad():
            self.check(self.scattering(x), x)

    def check(self, found, x, filters=None):
        stem = self.scattering
        numbers = reference.numbers(filters or self.filters(self.shape[-2:]))
        right = reference.scattering(x.detach().double().numpy(), numbers, stem.bank.scales, self.channels(),
                                     rotation=getattr(stem, 'rotation', None))
        error = np.abs(found.detach().double().numpy().reshape(right.shape) - right).max()
        assert error <= ERRORS[self.dtype] * np.abs(right).max()

    def channels(self):
        return self.scattering.channels

    @invariant()
    def says_what_it_is(self):
        assert self.scattering.mode == self.mode()
        assert self.scattering.learnable == self.learnable
        assert bool(self.of_filters()) == self.learnable
        kept = {name: p.numel() for name, p in self.model.named_parameters() if name in self.held}
        assert sum(p.numel() for p in self.model.parameters() if p.requires_grad) == self.size() - sum(kept.values())

    def mode(self):
        if not self.stored:
            return 'fixed'
        return 'learnable' if self.learnable and self.of_filters() - self.held else 'frozen'

    def teardown(self):
        scat_zoo.use_engine(True)
        torch.set_num_threads(1)

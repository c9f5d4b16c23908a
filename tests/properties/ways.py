"""All ways in which the package computes a stem's coefficients."""
import warnings
from unittest import mock

import torch

from scat_zoo.scattering import engine
from scat_zoo.scattering.engine import exported, gpu, program, run
from scat_zoo.scattering.engine.plan import Plan, shapes


def fast(stem, x):
    with torch.no_grad():
        return stem(x)


def plain(stem, x):
    with engine.use_engine(False), torch.no_grad():
        return stem(x)


def without_torchscript(stem, x):
    """The CPU's programs, executed by Python; those that are kept would be executed as before."""
    run.empty_cache()
    with mock.patch.object(program, 'execute', program.executed_by_python()):
        return fast(stem, x)


def scripted(stem, x):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)              # torch would rather export
        return torch.jit.script(stem)(x).detach()


def compiled(stem, x):
    torch.compiler.reset()                                          # it would stop after eight stems
    with torch.no_grad():
        return torch.compile(stem, backend='eager')(x)


def in_a_graph(stem, x):
    """With the constants and the products that an export has."""
    return _by(_exported, stem, x)


def by_triton(stem, x):
    """A GPU's way; without one, by Triton's interpreter."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with mock.patch.object(gpu, '_memory', return_value=1 << 30):
        return _by(_by_gpu, stem.to(device), x.to(device)).cpu()


def _by(entry, stem, x):
    """A stem that takes this entry for the engine's."""
    with mock.patch.object(engine, 'scattering2d', entry):
        return fast(stem, x)


def _row(filters, scales, max_order, border):
    phi, psi = filters
    M, N = phi[0][0].shape
    plan = Plan(M, N, len(psi[0][0]) if max_order > 0 else 0, max_order, tuple(scales), border)
    return plan, plan.in_a_row(phi, psi)


def _exported(x, filters, scales, max_order, pre_pad=False, border=1):
    plan, _ = _row(filters, scales, max_order, border)
    found = exported.scattering(x, exported.constants(filters, plan, x.shape[-2:], pre_pad))
    return [s.permute(3, 2, 0, 1).unflatten(0, x.shape[:-2]) for s in found]


def _by_gpu(x, filters, scales, max_order, pre_pad=False, border=1):
    plan, row = _row(filters, scales, max_order, border)
    found, _ = gpu.forward(x.flatten(0, -3), row, [False] * len(row), plan, False)
    assert [s.shape[1:] for s in found] == [torch.Size(shape) for shape in shapes(plan)]
    return [s.unflatten(0, x.shape[:-2]) for s in found]

"""Single steps, where the transform as a whole would not tell."""
import torch

from scat_zoo.scattering.engine import steps
from scat_zoo.scattering.engine.program import Program


def test_a_sum_of_thousands_of_samples_keeps_the_digits_of_floats():
    torch.manual_seed(0)
    samples, weights, out = torch.rand(1 << 14, 8), torch.rand(2, 2, 1 << 14), torch.empty(2, 2, 8)
    program = Program(samples, [])
    steps.lowpass_whole(program, weights, samples, out)
    program.run()
    expected = (weights.double().flatten(0, 1) @ samples.double()).view(2, 2, 8)
    assert (out / expected - 1).abs().max() < 5e-7                 # one after the other, 3e-6

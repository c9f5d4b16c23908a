"""Twins of the zoo's models with Morlet filters, learned singly or a scale at once."""
from twins import register

register(
    __name__,
    morlet={'learnable': True, 'parametrization': 'morlet'},
    equivariant={'learnable': True, 'parametrization': 'equivariant'},
    nonexpansive={'learnable': True, 'parametrization': 'morlet', 'nonexpansive': True, 'learn_lowpass': True},
)

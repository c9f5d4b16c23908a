"""Twins of the zoo's models with learned pixelwise filters, made for 64 pixels, and for any size as all are."""
from twins import register

register(__name__, learnable={'learnable': True, 'img_size': 64})

import os

import torch

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'            # as tests/conftest.py asks for, before anything imports Triton

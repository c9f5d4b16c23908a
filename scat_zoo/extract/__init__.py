"""Features of any number of images, in safetensors files that an interrupted run goes on with: `scat-zoo extract`.

sources.py says which images make up which file, features.py what is computed of them, shards.py how the files are
written, reading.py how they are read, job.py does it all.
"""
from .features import FeatureExtractor
from .reading import Features, load

__all__ = ['FeatureExtractor', 'Features', 'load']

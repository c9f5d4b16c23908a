"""Image files for the tests of extracting: in folders, and in tar files."""
import io
import tarfile

import numpy as np
from PIL import Image

MODEL = 'scat_tiny.fashion_mnist'               # grey, 28 pixels


def write(folder, count, first=0, size=(28, 28)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        picture(i, size).save(folder / f'{i:03}.png')
    return folder


def picture(i, size=(28, 28)):
    return Image.fromarray(np.random.RandomState(i).randint(0, 256, size, np.uint8))


def png(i):
    content = io.BytesIO()
    picture(i).save(content, 'PNG')
    return content.getvalue()


def write_tar(file, members):
    with tarfile.open(file, 'w') as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file

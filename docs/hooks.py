"""Hooks of mkdocs: links work in the site as they do in the repository.

README.md is the home page. A file or folder outside docs/ that a page links to gets a page of its own under source/.
"""
import posixpath
import re
from pathlib import Path
from typing import Dict, List

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}
LANGUAGES = {'.py': 'python', '.json': 'json', '.yml': 'yaml'}
LINK = re.compile(r'(?<=\]\()(?!\w+:)[^)#\s]+')         # up to its anchor

sources: Dict[str, Path] = {}                           # a page's place in the site -> what it shows


def place(file: Path) -> str:
    """Where the site has a file or folder of the repository."""
    if file.is_file() and file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    name = file.relative_to(ROOT).as_posix()
    return PAGES.get(name) or f'source/{name}{"" if file.suffix == ".md" else ".md"}'


def markdown(file: Path) -> str:
    """What a page shows: Markdown as it is, the text of other files, the list of a folder."""
    if file.suffix == '.md':
        return file.read_text()
    title = f'# {file.relative_to(ROOT).as_posix()}\n\n'
    if file.is_file():
        return f'{title}`````{LANGUAGES.get(file.suffix, "text")}\n{file.read_text()}\n`````\n'
    names = sorted(inner.relative_to(file.parent).as_posix() for inner in file.rglob('*')
                   if inner.suffix in ('.md', *LANGUAGES))
    return title + ''.join(f'- [{name}]({name})\n' for name in names)


def target(file: Path, link: str) -> Path:
    """The file or folder of the repository that a file links to; the file itself if there is none."""
    there = (file.parent / link).resolve()
    return there if there.exists() and there.is_relative_to(ROOT) else file


def targets(file: Path) -> List[Path]:
    """All of them."""
    return [target(file, link) for link in LINK.findall(markdown(file))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages for what is not in docs/."""
    sources.clear()
    sources.update((file.src_uri, Path(file.abs_src_path)) for file in files.documentation_pages())
    todo = [*(ROOT / name for name in PAGES), *(there for file in sources.values() for there in targets(file))]
    while todo:
        file = todo.pop()
        if files.get_file_from_path(place(file)) is None:
            sources[place(file)] = file
            files.append(File.generated(config, place(file), content=markdown(file)))
            todo += targets(file)
    return files


def on_page_markdown(text: str, page: Page, **_: object) -> str:
    """Links between files of the repository, turned into those between pages. mkdocs tells of any that are wrong."""
    file, here = sources[page.file.src_uri], posixpath.dirname(page.file.src_uri)

    def moved(link: 're.Match[str]') -> str:
        there = target(file, link[0])
        return link[0] if there == file else posixpath.relpath(place(there), here)
    return LINK.sub(moved, text)

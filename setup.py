"What `pyproject.toml` calls dynamic: the requirements, from `settings.ini`, and the long description, from `README.md`"
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

root = Path(__file__).parent
cfg = ConfigParser(interpolation=None, delimiters=['='])
cfg.read(root/'settings.ini', encoding='utf-8')
reqs = {k:v.strip().splitlines() for k,v in cfg['DEFAULT'].items()}

# A relative path in README.md serves GitHub and every clone, but PyPI needs the whole address
repo = re.search(r'Repository = "(.+)"', (root/'pyproject.toml').read_text(encoding='utf-8'))[1]
readme = (root/'README.md').read_text(encoding='utf-8')
readme = re.sub(r'(\]\(|src=")(?=[\w/-]+\.(png|svg|gif|jpg)\b)', rf'\1{repo}/raw/main/', readme)
readme = re.sub(r'(\]\()(?=[\w./-]+\))', rf'\1{repo}/blob/main/', readme)

setup(install_requires=reqs.pop('requirements'), extras_require={k.removesuffix('_requirements'):v for k,v in reqs.items()},
    long_description=readme, long_description_content_type='text/markdown')

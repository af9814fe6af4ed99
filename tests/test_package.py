"What is built and installed: the wheel, its metadata, and what importing it brings along"
import ast, importlib.util, inspect, json, pydoc, re, subprocess, sys
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile
from execnb.shell import CaptureShell
from fastai.learner import Learner
from nbdev.doclinks import nbglob
import pytest, fastmix, fastmix.all as fm

root = Path(__file__).parent.parent
modules = sorted(o.stem for o in root.glob('fastmix/*.py'))

def name(req): return re.match(r'[\w.-]+', req)[0].lower()
def python(code, **kwargs): return subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True, **kwargs).stdout

@pytest.fixture(scope='session')
def wheel(tmp_path_factory):
    "The wheel that a release would have: made from the sdist, each in a fresh environment"
    out = tmp_path_factory.mktemp('dist')
    res = subprocess.run([sys.executable, '-m', 'build', '-o', out, root], capture_output=True, text=True)
    assert res.returncode==0, res.stdout+res.stderr
    subprocess.run([sys.executable, '-m', 'twine', 'check', '--strict', *out.iterdir()], check=True)
    return ZipFile(next(out.glob('*.whl')))

@pytest.fixture(scope='session')
def metadata(wheel): return message_from_bytes(wheel.read(next(o for o in wheel.namelist() if o.endswith('/METADATA'))))

def test_wheel(wheel, tmp_path):
    "It holds every module and nothing else, and each imports from it"
    code = [o for o in wheel.namelist() if '.dist-info/' not in o]
    assert sorted(code) == [f'fastmix/{o}.py' for o in modules]
    wheel.extractall(tmp_path)
    imports = '\n'.join(f'import fastmix.{o}' for o in modules if o!='__init__')
    where = python(f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n{imports}\nprint(fastmix.__file__)', cwd=tmp_path).strip()
    assert Path(where).parent == tmp_path/'fastmix'

def test_metadata(metadata):
    assert (metadata['Version'], metadata['License-Expression']) == (fastmix.__version__, 'Apache-2.0')
    assert not re.search(r'(\]\(|src=")(?!https?:|#)', re.sub(r'^(```.*?^```| {4}.*?$)', '', metadata.get_payload(), flags=re.M|re.S))

def test_requirements(metadata):
    "`settings.ini` is where requirements stand, and all of them reach the wheel"
    cfg = ConfigParser(interpolation=None, delimiters=['='])
    cfg.read(root/'settings.ini')
    want = {f'{name(o)} {k}' for k,v in cfg['DEFAULT'].items() for o in v.split('\n') if o}
    def _extra(o): return m[1]+'_' if (m := re.search('extra == "(.+)"', o)) else ''
    assert {f'{name(o)} {_extra(o)}requirements' for o in metadata.get_all('Requires-Dist')} == want
    assert not re.search('^(optional-)?dependencies', (root/'pyproject.toml').read_text(), flags=re.M)
    assert not [o for o in root.iterdir() if re.match(r'requirements.*|setup\.cfg|environment.*', o.name)]

def third_party(paths):
    "What files import, but for Python's own modules and this package"
    nodes = [o for path in paths for o in ast.walk(ast.parse(path.read_text(encoding='utf-8')))]
    found = {a.name for o in nodes if isinstance(o, ast.Import) for a in o.names}
    found |= {o.module for o in nodes if isinstance(o, ast.ImportFrom) and not o.level}
    return {o.split('.')[0] for o in found} - {*sys.stdlib_module_names,'fastmix'}

def requirements(extra=''):
    cfg = ConfigParser(interpolation=None, delimiters=['='])
    cfg.read(root/'settings.ini')
    return cfg['DEFAULT'][f'{extra}requirements'].split('\n')[1:]

def test_imports_declared():
    "What the package imports is what it requires, neither more nor less, each with a floor that a job of the workflow installs"
    assert third_party(root.glob('fastmix/*.py'))=={name(o) for o in requirements()}
    assert all(re.fullmatch(r'\w+>=\d+(\.\d+){2}', o) for o in requirements())
    sed = re.search(r"sed -n '.*' settings.ini", (root/'.github/workflows/test.yaml').read_text())[0]
    lowest = subprocess.run(sed, shell=True, cwd=root, check=True, capture_output=True, text=True).stdout.split()
    assert lowest==[o.replace('>=', '==') for o in requirements()]

def test_dev_declared():
    "The tests that use real models find them in the environment for development"
    text = ''.join(o.read_text(encoding='utf-8') for o in root.glob('tests/test_real_*.py'))
    used = {o for o in ('monai','segmentation_models_pytorch','timm','kornia','transformers','peft') if f"'{o}" in text or f'import {o}' in text}
    assert len(used)>4 and used <= {name(o).replace('-', '_') for o in requirements('dev_')}

def test_version():
    "The changelog's newest entry is this version's"
    assert re.search(r'^## (\S+)', (root/'CHANGELOG.md').read_text(), flags=re.M)[1] == fastmix.__version__

@pytest.mark.parametrize('nb', sorted(root.glob('nbs/**/*.ipynb')), ids=lambda o: o.stem)
def test_notebook(nb):
    "It tells nothing of the machine that it ran on, and is no burden to load"
    text = nb.read_text(encoding='utf-8')
    assert not re.findall(r'(?<![\w.~])/(?:tmp|root|home|Users)/[^\s"]+', text)
    assert len(text) < 200_000

def cells(nb, kind='code'): return [''.join(c['source']) for c in json.loads(nb.read_text(encoding='utf-8'))['cells'] if c['cell_type']==kind]

def visible(src):
    "Readers see this cell of code as it is: neither exported, hidden nor folded"
    return not re.search(r'^#\| ?(export|hide)|^#\| (code-fold|echo: false)', src, flags=re.M)

def test_width():
    "Pages cut off what is beyond 88 columns"
    wide = [f'{nb.relative_to(root)}: {line}' for nb in sorted(root.glob('nbs/**/*.ipynb')) for src in cells(nb) if visible(src)
        for line in src.splitlines() if len(line)>88 and not line.startswith('#|')]
    assert not wide, 'Wrap to at most 88 columns, or fold with `#| code-fold: true`:\n'+'\n'.join(wide)

def test_default_exp():
    "No two notebooks become the same module, where one would replace the other without a word"
    found = {}
    for nb in root.glob('nbs/**/*.ipynb'):
        for o in re.findall(r'^#\| *default_exp (\S+)', '\n'.join(cells(nb)), flags=re.M): found.setdefault(o, []).append(nb.name)
    assert {k:v for k,v in found.items() if len(v)>1}=={}

def test_numbers():
    "No two notebooks have the same number"
    numbers = [o.name[:2] for o in root.glob('nbs/[0-9]*.ipynb')]
    assert len(set(numbers))==len(numbers)>20

def test_skeleton():
    "The notebook to start from runs from top to bottom"
    ns = {}
    for src in cells(root/'nbs/_skeleton.ipynb')[:-1]: exec(src, ns)
    assert issubclass(ns['HalfMix'], fm.Mixer) and '/_skeleton' not in ''.join(str(o) for o in nbglob(root/'nbs'))

def subclasses(cls): return {cls}.union(*map(subclasses, cls.__subclasses__()))

def test_all():
    "`fastmix/all.py` is written by hand: each public mixer is there, and each name in it is public where it comes from"
    for o in modules:
        if o!='__init__': importlib.import_module(f'fastmix.{o}')
    inner = {'Plain','PerSample'} # parts of MixChoice
    mixers = {o.__name__ for o in subclasses(fm.Mixer) if o.__module__.startswith('fastmix.') and o.__name__[0]!='_'}
    assert mixers-inner <= {*vars(fm)}
    for k,o in public.items(): assert k in importlib.import_module(o.__module__).__all__
    lines = (root/'fastmix/all.py').read_text(encoding='utf-8').splitlines()[1:]
    assert all(re.fullmatch(r'from fastmix\.\w+ import .+', o) for o in lines if o)

def test_site_limit():
    "A notebook that hangs ends the build of the site, and is named"
    code = """import sys; sys.path.insert(0, 'tools')
import limited
limited.limit,limited.main = 1,lambda o: all(iter(lambda: 1, 0))
limited.process(['nbs/00_hangs.ipynb'])"""
    res = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, timeout=60)
    assert res.returncode==1 and '00_hangs.ipynb takes more than 1 s' in res.stderr

@pytest.mark.parametrize('module', ['draw', 'mix', 'loss'])
def test_light(module):
    "The layers that serve any training loop import no fastai"
    found = python(f'import sys, fastmix.{module}; print(*{{o.split(".")[0] for o in sys.modules}})').split()
    assert 'torch' in found and not {'fastai', 'torchvision', 'matplotlib', 'pandas'} & {*found}

public = {k:o for k,o in vars(fm).items() if getattr(o, '__module__', '').startswith('fastmix.')}
methods = {o.name:getattr(Learner, o.name) for path in root.glob('fastmix/*.py') for o in ast.parse(path.read_text(encoding='utf-8')).body
    if isinstance(o, ast.FunctionDef) and o.args.args and getattr(o.args.args[0].annotation, 'id', '')=='Learner' and o.name!='mixer'}

def tool(name):
    "A module of `tools/`"
    spec = importlib.util.spec_from_file_location(name, root/f'tools/{name}.py')
    res = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(res)
    return res

@pytest.mark.parametrize('o', [*public.values(),*methods.values()], ids=lambda o: o.__qualname__)
def test_help(o):
    "`help()` and `?` show every argument with its meaning and default, and the signature is whole"
    told,ps = inspect.getdoc(o),{k:p for k,p in inspect.signature(o).parameters.items() if k not in ('self','unknown')}
    for k,p in ps.items():
        assert p.kind!=p.VAR_KEYWORD, k
        line,meaning = re.search(rf'^\*?{k}( : .*)?\n    (.+)$', told, flags=re.M).groups()
        assert len(meaning)>7 and 'NoneType' not in (line or '')
        if p.default is not p.empty: assert f'default {p.default!r}' in line
    assert told.split('\n')[0] in pydoc.render_doc(o, renderer=pydoc.plaintext) and 'Parameters' in told or not ps

@pytest.mark.parametrize('o', [fm.MixUp, fm.CutMix, fm.FMix, fm.ResizeMix, fm.ManifoldMixUp, fm.mixup_batch, fm.cutmix_batch], ids=lambda o: o.__name__)
def test_help_of_mixes(o):
    "The paper and the errors are there too"
    told = inspect.getdoc(o)
    assert 'arxiv.org/abs/' in told and re.search(r'^Raises\n-+\nTypeError, ValueError\n    .*expected', told, flags=re.M)

def test_question_mark():
    "IPython's `MixUp?` shows the same"
    shell = CaptureShell()
    shell.user_ns['MixUp'] = fm.MixUp
    told = inspect.cleandoc(shell.object_inspect('MixUp')['docstring'])
    assert all(f'\n{k} :' in told for k in inspect.signature(fm.MixUp).parameters)

def test_help_in_step():
    "`tools/help.py` has nothing to change"
    assert [o.name for o,new in tool('help').sources().items() if o.read_text(encoding='utf-8')!=new]==[]

banned = set('''pickle marshal shelve dill cloudpickle torch.load torch.hub.load eval exec compile __import__ importlib runpy ctypes pty
    subprocess os.system os.popen os.execv os.execvp os.spawnv socket ssl http urllib ftplib smtplib requests httpx aiohttp urllib3
    fastdownload'''.split())

@pytest.mark.parametrize('module', modules)
def test_safe(module):
    "No pickle, no evaluated text, no shell, no network"
    nodes = [*ast.walk(ast.parse((root/f'fastmix/{module}.py').read_text(encoding='utf-8')))]
    imports = {a.name.split('.')[0] for o in nodes if isinstance(o, ast.Import) for a in o.names}
    imports |= {(o.module or '').split('.')[0] for o in nodes if isinstance(o, ast.ImportFrom)}
    calls = {ast.unparse(o.func) for o in nodes if isinstance(o, ast.Call)}
    assert not (imports | calls) & banned

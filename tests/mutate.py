"""Change each piece of the package once, and see whether a test notices

    python tests/mutate.py draw mix loss             # every operator, constant, argument and statement of these modules
    python tests/mutate.py callback --sample 100     # a random hundred of them
    python tests/mutate.py faults                    # the faults that tests/test_regressions.py names

Nothing is written: each change is compiled in a process of its own, where the cells of the module's notebook run on it, then those of
notebooks that use it, then the tests. A change that none of these notices is a survivor, and is printed. mutants.txt holds those
that change nothing that a processor could show, with the reason; `non_blocking`, which only a device could notice, is never changed.
By hand, not for every commit: a change takes a second or two, a survivor the time of all its tests."""
import argparse, ast, copy, importlib, importlib.abc, importlib.util, json, os, random, re, resource, signal, sys, tempfile, time
from functools import partial
from pathlib import Path
from faults import faults

root = Path(__file__).resolve().parent.parent
# Module and change: why no test can notice it
equivalent = {tuple(o.split(' | ')[:2]):o.split(' | ')[2] for o in (root/'tests/mutants.txt').read_text(encoding='utf-8').splitlines()[1:]}
# Of the long tests some
some = 'second or test_loss or some_batches or moved or names or exits and tokens or training or export and CutMix or checkpointed'
# What looks at a module besides its own notebook: other notebooks, then test files, a bar, and the names of tests in them
looks = f'''draw: mix | properties regressions no_wait | cycle or beta or place or box or drawn or border or lambda or draws or default
mix: | properties regressions no_wait fastai | defaults or mixup or cutmix or paste or dense or drawn or precision or leak or draws or mixing or smallest
loss: | properties regressions no_wait | cross or ends or other or dense or smoothed or precision or leak or triple or losses
batch: mixer callback choice | properties regressions determinism fastai | nested or several or leaves or rank or generator or moved
inner: mixer callback manifold | properties fastai exits | copied or okens and not test_callbacks or rnn
mixer: callback choice stack | properties regressions no_wait determinism fastai exits | defaults or generator and MixUp or nested or several or regressions or losses_ or leaves or masks or tokens or new_loss or one_mixer or {some} or place_again
callback: | properties regressions no_wait fastai | nested or several or regressions or defaults or cut_masks or {some}
places: manifold | fastai | anifold or second or wrapped or copies
manifold: choice stage | fastai exits soak | anifold or second or wrapped or copies or train or loss or moved
output: choice stage show | fastai exits | output_parts or Output or train or loss or moved or defaults
choice: stage show | fastai determinism exits no_wait show | hoice or train or loss or moved
fmix: show | fastai exits no_wait show | FMix or fourier or draws
resizemix: show | fastai exits no_wait show | ResizeMix or box
stage: show | show
comparison: compare
pictures: show | show
show: | show
compare: | readme'''
looks = dict(o.split(': ', 1) for o in looks.splitlines())

heavy = '''hypothesis matplotlib.pyplot nbdev.showdoc pytest scipy.stats sklearn.datasets torch torchvision torch._subclasses.fake_tensor
    torch._dynamo fastai.callback.all fastai.tabular.all fastai.text.all fastai.vision.all'''.split()

# Changes

pairs = 'Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, Add Sub, Mult Div, BitAnd BitOr, And Or'
flips = {getattr(ast, a):getattr(ast, b) for p in pairs.split(', ') for a,b in (p.split(),p.split()[::-1])}
flips |= {ast.Pow:ast.Mult, ast.FloorDiv:ast.Mult, ast.Mod:ast.Mult}
chained = '''as_subclass clamp clone contiguous detach expand float flip floor log_ long movedim repeat_interleave reshape roll round
    sigmoid to unsqueeze view'''.split()

def variants(o):
    "New versions of a node, each with one change"
    def _with(**kw):
        new = copy.copy(o)
        for k,v in kw.items(): setattr(new, k, v)
        return new
    if isinstance(o, ast.Compare): yield from (_with(ops=[*o.ops[:i], flips[type(p)](), *o.ops[i+1:]]) for i,p in enumerate(o.ops))
    elif isinstance(o, (ast.BinOp,ast.BoolOp,ast.AugAssign)) and type(o.op) in flips: yield _with(op=flips[type(o.op)]())
    elif isinstance(o, ast.UnaryOp): yield o.operand
    elif isinstance(o, ast.IfExp): yield _with(body=o.orelse, orelse=o.body)
    elif isinstance(o, ast.Constant):
        if isinstance(o.value, bool): yield _with(value=not o.value)
        elif isinstance(o.value, (int,float)): yield _with(value=o.value+1)
        elif isinstance(o.value, str): yield _with(value=o.value+'_')
    elif isinstance(o, ast.Call):
        a = o.args
        if len(a)>1 and not any(isinstance(p, ast.Starred) for p in a[:2]): yield _with(args=[a[1],a[0],*a[2:]])
        yield from (_with(keywords=o.keywords[:i]+o.keywords[i+1:]) for i,k in enumerate(o.keywords) if k.arg not in (None,'non_blocking'))
        if isinstance(o.func, ast.Attribute) and o.func.attr in chained: yield o.func.value
    elif isinstance(o, ast.comprehension) and o.ifs: yield _with(ifs=[])
    elif isinstance(o, ast.If): yield from (_with(test=ast.Constant(v)) for v in (True,False))
    elif isinstance(o, (ast.FunctionDef,ast.ClassDef)):
        yield from (_with(decorator_list=[p for p in o.decorator_list if p is not d]) for d in o.decorator_list)
    if isinstance(o, ast.Return) and o.value: yield _with(value=None)
    elif isinstance(o, (ast.Assign,ast.AugAssign,ast.Expr,ast.Raise,ast.For)): yield ast.Pass()

def brief(o):
    if isinstance(o, ast.Pass): return 'pass'
    text = ast.unparse(o) if not isinstance(o, ast.comprehension) else ast.unparse(ast.ListComp(ast.Name('_'), [o]))
    if isinstance(o, (ast.FunctionDef,ast.ClassDef)): return ' '.join(text.split('\n')[:len(o.decorator_list)+1])
    return re.sub(r'\s+', ' ', text.split(':\n')[0] if isinstance(o, (ast.If,ast.For)) else text)

small = ast.Constant,ast.UnaryOp,ast.keyword,ast.Tuple,ast.List,ast.Subscript,ast.Slice,ast.Starred,ast.arguments

def visit(o, parents=()):
    "Nodes that may be changed, each with those around it"
    if isinstance(o, ast.Expr) and isinstance(o.value, ast.Constant): return
    if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '')=='__all__': return
    if isinstance(o, (ast.Import,ast.ImportFrom,ast.JoinedStr)) or isinstance(o, ast.keyword) and o.arg=='non_blocking': return
    yield o,parents
    for name,value in ast.iter_fields(o):
        if name in ('annotation','returns','ctx','decorator_list') or isinstance(o, ast.Raise): continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST): yield from visit(child, (*parents,o))

def changes(src):
    "Every changed version of a module's source, as `(line, where, what, new source)`"
    tree = ast.parse(src)
    for o,parents in list(visit(tree)):
        where = '.'.join(p.name for p in (*parents,o) if isinstance(p, (ast.FunctionDef,ast.ClassDef)))
        line = getattr(o, 'lineno', None) or getattr(o, 'iter', parents[-1] if parents else o)
        for new in variants(o):
            shown = next(p for p in (o,*parents[::-1]) if not isinstance(p, small)) if isinstance(o, small) else o
            was = brief(shown)
            with swapped(tree, o, new):
                now = brief(new if shown is o else shown)
                if was!=now: yield getattr(line, 'lineno', line),where,f'{was} -> {now}',ast.unparse(tree)

class swapped:
    "`tree` with `old` replaced by `new`, for a while"
    def __init__(self, tree, old, new): self.tree,self.old,self.new = tree,old,new
    def __enter__(self): self._swap(self.old, self.new)
    def __exit__(self, *args): self._swap(self.new, self.old)
    def _swap(self, a, b):
        for o in ast.walk(self.tree):
            for k,v in ast.iter_fields(o):
                if v is a: return setattr(o, k, b)
                if isinstance(v, list):
                    for i,c in enumerate(v):
                        if c is a:
                            v[i] = b
                            return

# Tests

class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    "Imports one module from the given source"
    def __init__(self, module, src): self.module,self.src = f'fastmix.{module}',src
    def find_spec(self, name, path, target=None): return importlib.util.spec_from_loader(name, self) if name==self.module else None
    def exec_module(self, module): exec(compile(self.src, self.module, 'exec'), vars(module))

def run_notebook(name):
    "Run the examples and tests of a notebook on the module as it is imported, whatever its own cells export"
    path = next(root.glob(f'nbs/[0-9]*_{name}.ipynb'))
    text,ns = path.read_text(encoding='utf-8'),dict(vars(importlib.import_module(f'fastmix.{name}')), __name__='__main__')
    alone,tensor = not re.search('(import|from) fastai', text),sys.modules['torch'].Tensor
    equal = tensor.__array_eq__
    if alone: del tensor.__array_eq__ # fastai's, which makes `test_eq` stricter than where it is not loaded
    for c in json.loads(text)['cells']:
        src = ''.join(c['source'])
        if c['cell_type']!='code' or re.search(r'^#\| *(exports?|eval: *false|default_exp.*)$|nbdev_export', src, flags=re.M): continue
        exec(compile(src, path.name, 'exec'), ns)
    if alone: tensor.__array_eq__ = equal

def run_tests(names, chosen=''):
    "Run the tests of some files, or of them those that are chosen as by pytest's `-k`"
    os.chdir(root)
    paths = [o for o in (o if '::' in o else f'tests/test_{o}.py' for o in names.split()) if (root/o.split('::')[0]).exists()]
    if sys.modules['pytest'].main(['-x', '-q', '-p', 'no:cacheprovider', '-W', 'ignore', *paths, '-k', chosen]): raise AssertionError

def steps_for(module):
    "Calls that look at a module, by name"
    nbs,*tests = looks.get(module, '|').split('|')
    return {o: partial(run_notebook, o) for o in (module,*nbs.split())} | ({'tests': partial(run_tests, *tests)} if any(tests) else {})

def child(module, src, steps, limit, out):
    "Import `src` as `module`, and run `steps` until one fails; say so to `out`"
    resource.setrlimit(resource.RLIMIT_CPU, (limit,limit))
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0,1,2): os.dup2(null, fd)
    sys.meta_path.insert(0, Changed(module, src))
    with tempfile.TemporaryDirectory() as tmp:
        for name,step in steps.items():
            os.chdir(tmp)
            try: step()
            except BaseException as e: return os.write(out, f'{name}: {type(e).__name__}: {e}'[:150].replace('\n', ' ').encode())
    os.write(out, b'nothing')

def noticed(module, src, steps, limit):
    "Which of `steps` notices that the source of `module` is `src`, and how; '' if none does"
    r,w = os.pipe()
    pid = os.fork()
    if not pid:
        try: child(module, src, steps, limit, w)
        finally: os._exit(0)
    os.close(w)
    end,done = time.time()+8*limit,0
    while not done and time.time()<end:
        time.sleep(.02)
        done = os.waitpid(pid, os.WNOHANG)[0]
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with os.fdopen(r) as f: res = f.read()
    return 'time' if not res else '' if res=='nothing' else res

def preload():
    "What tests import anyway, so that each change need not"
    os.environ.update(OMP_NUM_THREADS='1', MPLBACKEND='agg')
    os.environ.setdefault('FASTMIX_EXAMPLES', '0.3')
    for o in heavy: importlib.import_module(o)
    sys.modules['torch'].set_num_threads(1)
    assert 'fastmix' not in sys.modules

def source(module): return (root/f'fastmix/{module}.py').read_text(encoding='utf-8')

def mutate(module, args):
    "Try the changes of one module; returns how many were tried and the survivors"
    todo = list(changes(source(module)))
    found = len(todo)
    todo = [o for o in todo if args.line[0]<=o[0]<=args.line[1]]
    if args.sample and args.sample<len(todo): todo = sorted(random.Random(args.seed).sample(todo, args.sample), key=lambda o: o[0])
    if args.list: return [print(f'{module}.py:{o[0]} {o[1]}: {o[2]}') for o in todo] and None
    steps,start,count,left = steps_for(module),time.time(),dict(noticed=0, time=0, equivalent=0),[]
    why = noticed(module, source(module), steps, 10*args.limit)
    if why: sys.exit(f'the unchanged {module} fails: {why}')
    for line,where,what,src in todo:
        key = f'{where}: {what}'
        if (module,key) in equivalent and not args.all: res = 'equivalent'
        else: res = noticed(module, src, steps, args.limit)
        if args.verbose: print(f'{module}.py:{line} {key}  | {res}', flush=True)
        if res: count[res if res in count else 'noticed'] += 1
        else:
            left.append(key)
            print(f'SURVIVED {module}.py:{line} {key}', flush=True)
    there = {(module,f'{o[1]}: {o[2]}') for o in changes(source(module))}
    for o in equivalent:
        if o[0]==module and o not in there: print('no such change any more:', *o)
    said = ', '.join(f'{v} {k}' for k,v in count.items())
    print(f'{module}: {len(todo)} of {found} changes in {time.time()-start:.0f} s: {said}, {len(left)} survived', flush=True)
    return left

def put_in(fault, module, test, old, new, limit):
    "Put one named fault in, and run its test"
    src = source(module)
    if src.count(old)!=1: return f'NO SUCH CODE {fault}: {old!r} is {src.count(old)} times in {module}'
    res = noticed(module, src.replace(old, new), dict(test=partial(run_tests, f'tests/test_regressions.py::{test}')), limit)
    return f"{'noticed' if res else 'SURVIVED'} {fault}: {module}, {new.strip()!r}  | {res}"

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('modules', nargs='+', help="modules of the package, or 'faults'")
    p.add_argument('--sample', type=int, help="try so many changes of each module, drawn at random")
    p.add_argument('--seed', type=int, default=0, help="of that sample")
    p.add_argument('--line', type=int, nargs=2, default=(0,10**6), help="only changes from this line to that")
    p.add_argument('--limit', type=int, default=120, help="processor seconds for one change; what takes longer counts as noticed")
    p.add_argument('--all', action='store_true', help="also try those known to be equivalent")
    p.add_argument('--list', action='store_true', help="print the changes and stop")
    p.add_argument('--verbose', action='store_true', help="print what noticed each change")
    args = p.parse_args()
    if not args.list: preload()
    bad = []
    for module in args.modules:
        if module!='faults': bad += mutate(module, args) or []
        else:
            for o in faults:
                said = put_in(*o, args.limit)
                print(said, flush=True)
                if not said.startswith('noticed'): bad.append(said)
    sys.exit(bool(bad))

if __name__=='__main__': main()

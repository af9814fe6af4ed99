"""Change each piece of the package once, and see whether a test notices

    python tests/mutate.py draw mix loss             # every operator, constant, argument and statement of these modules
    python tests/mutate.py callback --sample 100     # a random hundred of them

Nothing is written: each change is compiled in a process of its own, where the cells of the module's notebook run on it, then those of
modules that import it, then the test files that use a public name of any of these. A change that none of these notices is a survivor, and
is printed. Some change nothing that a processor could show; `non_blocking`, which only a device could notice, is never changed.
By hand, not for every commit: a change takes a second or two, a survivor the time of all its tests."""
import argparse, ast, copy, importlib, importlib.abc, importlib.util, json, os, random, re, resource, signal, sys, tempfile, time
from functools import partial
from pathlib import Path

root = Path(__file__).resolve().parent.parent

# What looks at a module

def parsed(path): return ast.parse(path.read_text(encoding='utf-8'))
def source(module): return (root/f'fastmix/{module}.py').read_text(encoding='utf-8')

def importers(module):
    "The module and those that import from it"
    def _imports(path): return any(isinstance(o, ast.ImportFrom) and o.level==1 and o.module==module for o in parsed(path).body)
    return [module] + [o.stem for o in sorted(root.glob('fastmix/*.py')) if o.stem not in ('all','__init__') and _imports(o)]

def public(module):
    "Names in `__all__`"
    found = [o.value for o in ast.parse(source(module)).body if isinstance(o, ast.Assign) and getattr(o.targets[0], 'id', '')=='__all__']
    return {*ast.literal_eval(found[0])} if found else set()

def imported(tree): return {o.module if isinstance(o, ast.ImportFrom) else a.name for o in tree.body if isinstance(o, (ast.Import,ast.ImportFrom))
    for a in o.names}

def mentioned(path):
    "Names that a test file uses, itself or through helpers.py, where it imports the package into its own process"
    tree = parsed(path)
    mods = imported(tree)
    names = {getattr(o, 'id', None) or getattr(o, 'attr', None) or getattr(o, 'name', None) for o in ast.walk(tree)}
    if 'helpers' in mods: names |= mentioned(root/'tests/helpers.py')
    return names if any(o.split('.')[0] in ('fastmix','helpers') for o in mods) else set()

def test_files(modules):
    "Test files that use a public name of `modules`, the shortest first"
    names = {n for m in modules for n in public(m)}
    found = [o for o in root.glob('tests/test_*.py') if mentioned(o) & names]
    return sorted(found, key=lambda o: o.stat().st_size)

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

def run_tests(path):
    "Run the tests of a file"
    os.chdir(root)
    if sys.modules['pytest'].main(['-x', '-q', '-p', 'no:cacheprovider', '-W', 'ignore', str(path)]): raise AssertionError

def steps_for(module):
    "Calls that look at a module, by name"
    modules = importers(module)
    return {o: partial(run_notebook, o) for o in modules} | {o.stem: partial(run_tests, o) for o in test_files(modules)}

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
    for o in sorted({m for p in root.glob('tests/test_*.py') for m in imported(parsed(p))} | {'pytest'}):
        if o.split('.')[0] not in ('fastmix','helpers') and importlib.util.find_spec(o.split('.')[0]): importlib.import_module(o)
    sys.modules['torch'].set_num_threads(1)
    assert 'fastmix' not in sys.modules

def mutate(module, args):
    "Try the changes of one module; returns how many were tried and the survivors"
    todo = list(changes(source(module)))
    found = len(todo)
    todo = [o for o in todo if args.line[0]<=o[0]<=args.line[1]]
    if args.sample and args.sample<len(todo): todo = sorted(random.Random(args.seed).sample(todo, args.sample), key=lambda o: o[0])
    if args.list: return [print(f'{module}.py:{o[0]} {o[1]}: {o[2]}') for o in todo] and None
    steps,start,count,left = steps_for(module),time.time(),dict(noticed=0, time=0),[]
    why = noticed(module, source(module), steps, 10*args.limit)
    if why: sys.exit(f'the unchanged {module} fails: {why}')
    for line,where,what,src in todo:
        key = f'{where}: {what}'
        res = noticed(module, src, steps, args.limit)
        if args.verbose: print(f'{module}.py:{line} {key}  | {res}', flush=True)
        if res: count[res if res in count else 'noticed'] += 1
        else:
            left.append(key)
            print(f'SURVIVED {module}.py:{line} {key}', flush=True)
    said = ', '.join(f'{v} {k}' for k,v in count.items())
    print(f'{module}: {len(todo)} of {found} changes in {time.time()-start:.0f} s: {said}, {len(left)} survived', flush=True)
    return left

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('modules', nargs='+', help="modules of the package")
    p.add_argument('--sample', type=int, help="try so many changes of each module, drawn at random")
    p.add_argument('--seed', type=int, default=0, help="of that sample")
    p.add_argument('--line', type=int, nargs=2, default=(0,10**6), help="only changes from this line to that")
    p.add_argument('--limit', type=int, default=120, help="processor seconds for one change; what takes longer counts as noticed")
    p.add_argument('--list', action='store_true', help="print the changes and stop")
    p.add_argument('--verbose', action='store_true', help="print what noticed each change")
    args = p.parse_args()
    if not args.list: preload()
    bad = []
    for module in args.modules: bad += mutate(module, args) or []
    sys.exit(bool(bad))

if __name__=='__main__': main()

"""Small models put together at random: whatever the model, the prediction of a mixed batch is that of the mixture which its labels name

Each model is trained by MixUp, by ManifoldMixUp at the places it finds, and at named layers. Every lambda is 0, so that sample i has to
be predicted as its partner is in the plain batch; models that are affine are tried with drawn lambdas too, and have to interpolate. A fit
may be refused in words instead, or a warning may come no later than the first wrong batch. `FASTMIX_EXAMPLES=10 pytest
tests/test_random_models.py -s` tries ten times as many."""
import os, random, pytest, torch, torch.nn.functional as F
from collections import Counter, namedtuple
from copy import deepcopy
from functools import partial
from itertools import count, islice
from types import SimpleNamespace
from torch import nn
from torch.utils._pytree import tree_map
import oracle
from fastmix.all import ManifoldMixUp, MixHere, MixUp
from oracle import at, cut, near, rows, verdict, watch

N,D,V,K = 8,6,12,3 # samples in a batch, width, words, classes
MANY = max(1, int(5*float(os.environ.get('FASTMIX_EXAMPLES', 1)))) # models for each feature
FOUND = Counter()

# Parts: each maps `(n,T,D)` to `(n,T,D)`, knowing which tokens are seen

class Fn(nn.Module):
    def __init__(self, f): super().__init__(); self.f = f
    def forward(self, *x): return self.f(*x)

class Layer(nn.Module):
    "A linear layer, and a bend if the model has any"
    def __init__(self, s): super().__init__(); self.lin,self.act = nn.Linear(D, D),s.act()
    def forward(self, h, m=None): return self.act(self.lin(h))

class Skip(nn.Module):
    "A layer that is passed by"
    def __init__(self, s, inner=Layer):
        super().__init__()
        self.inner = inner(s)
    def forward(self, h, m=None): return h+self.inner(h, m)

class Cat(nn.Module):
    "A layer whose input is kept beside its output"
    def __init__(self, s): super().__init__(); self.inner,self.out = Layer(s),nn.Linear(2*D, D)
    def forward(self, h, m=None): return self.out(torch.cat([h,self.inner(h)], -1))

class Tied(nn.Module):
    "One layer called several times in a row"
    def __init__(self, s): super().__init__(); self.cell,self.k = Layer(s),s.rng.choice((2,3))
    def forward(self, h, m=None):
        for _ in range(self.k): h = self.cell(h)
        return h

class Steps(nn.Module):
    "A cell called once for each step of a sequence"
    def __init__(self, s): super().__init__(); self.cell,self.every = nn.GRUCell(D, D),s.rng.random()<.5
    def forward(self, h, m=None):
        state,out = torch.zeros_like(h[:,0]),[]
        for t in range(h.shape[1]):
            state = self.cell(h[:,t], state)
            out.append(state)
        return torch.stack(out, 1) if self.every else state[:,None].expand_as(h)

class Encoder(nn.Module):
    def __init__(self, r): super().__init__(); self.r = r
    def forward(self, h): return self.r(h)
class Recurrent(nn.Module):
    "A recurrent layer that returns outputs and states, one of which is used"
    def __init__(self, s):
        super().__init__()
        kind,self.both,self.first,self.use = map(s.rng.choice, ((nn.GRU,nn.LSTM,nn.RNN),(False,True),(False,True),('outputs','states')))
        self.enc = Encoder(kind(D, D//2 if self.both else D, s.rng.choice((1,2)), batch_first=self.first, bidirectional=self.both))
    def forward(self, h, m=None):
        out,states = self.enc(h if self.first else h.transpose(0, 1))
        if self.use=='outputs': return out if self.first else out.transpose(0, 1)
        if isinstance(states, tuple): states = states[0]
        last = torch.cat([states[-2],states[-1]], -1) if self.both else states[-1]
        return last[:,None].expand(*h.shape[:2], -1)

class Sorted(nn.Module):
    "Rows are sorted before a layer, and put back behind it"
    def __init__(self, s): super().__init__(); self.inner = s.rng.choice((Layer,Skip))(s)
    def forward(self, h, m=None):
        o = (h.flatten(1).sum(1) if m is None else m.sum(1)).argsort(descending=True)
        return self.inner(h[o])[o.argsort()]

class Flat(nn.Module):
    "All tokens of all samples as rows of one layer"
    def __init__(self, s): super().__init__(); self.inner = s.rng.choice((Layer,Skip))(s)
    def forward(self, h, m=None): return self.inner(h.reshape(-1, D)).view_as(h)

class Stacked(nn.Module):
    "Two views of each sample, stacked into one batch of twice the rows"
    def __init__(self, s): super().__init__(); self.inner = Layer(s)
    def forward(self, h, m=None):
        a,b = self.inner(torch.cat([h,h.flip(1)*.5])).chunk(2)
        return a+b

class SeqFirst(nn.Module):
    "A layer of tokens whose batch comes second"
    def __init__(self, s):
        super().__init__()
        self.inner = Layer(s) if s.affine or s.rng.random()<.5 else nn.TransformerEncoderLayer(D, 2, 8, dropout=0.)
    def forward(self, h, m=None): return self.inner(h.transpose(0, 1)).transpose(0, 1)

class Attend(nn.Module):
    "Attention to the tokens that are seen"
    def __init__(self, s): super().__init__(); self.att,self.skip = nn.MultiheadAttention(D, 2, batch_first=True),s.rng.random()<.5
    def forward(self, h, m=None):
        o = self.att(h, h, h, key_padding_mask=None if m is None else ~m)[0]
        return h+o if self.skip else o

Out = namedtuple('Out', 'hidden shift')
class ToTuple(nn.Module):
    def __init__(self, s): super().__init__(); self.a,self.b = nn.Linear(D, D),nn.Linear(D, D)
    def forward(self, h): return Out(self.a(h), self.b(h))
class Tupled(nn.Module):
    "A layer that returns a named tuple"
    def __init__(self, s): super().__init__(); self.inner = ToTuple(s)
    def forward(self, h, m=None):
        o = self.inner(h)
        return o.hidden+o.shift
class ToDict(nn.Module):
    def __init__(self, s): super().__init__(); self.a,self.b = nn.Linear(D, D),nn.Linear(D, D)
    def forward(self, h): return dict(hidden=self.a(h), pairs=[(self.b(h), None)], n=3)
class Named(nn.Module):
    "A layer that returns a dict with lists of tuples in it"
    def __init__(self, s): super().__init__(); self.inner = ToDict(s)
    def forward(self, h, m=None):
        o = self.inner(h)
        return o['hidden']+o['pairs'][0][0]*o['n']

class InPlace(nn.Module):
    "Writes into its layer's output"
    def __init__(self, s): super().__init__(); self.lin,self.act = nn.Linear(D, D),nn.Identity() if s.affine else nn.ReLU(inplace=True)
    def forward(self, h, m=None):
        h = self.lin(h)
        h.mul_(2).add_(.1)
        return self.act(h)

class Normed(nn.Module):
    "Statistics of the batch"
    def __init__(self, s): super().__init__(); self.norm = nn.BatchNorm1d(D)
    def forward(self, h, m=None): return self.norm(h.transpose(1, 2)).transpose(1, 2)

class Here(nn.Module):
    "A MixHere between layers"
    def __init__(self, s): super().__init__(); self.here = MixHere()
    def forward(self, h, m=None): return self.here(h)

class Dropped(nn.Module):
    "A layer that runs in every other batch only"
    def __init__(self, s): super().__init__(); self.inner,self.n = Layer(s),0
    def forward(self, h, m=None):
        self.n += 1
        return self.inner(h) if self.n%2 else h

class Seq(nn.Module):
    def __init__(self, *ms): super().__init__(); self.ms = nn.ModuleList(ms)
    def forward(self, h, m=None):
        for o in self.ms: h = o(h, m)
        return h

# What comes first: from inputs to `(n,T,D)`

class Floats(nn.Module):
    def __init__(self, s): super().__init__(); self.lin = nn.Linear(4, D)
    def forward(self, x): return self.lin(x if x.ndim==3 else x[:,None])
class Writes(nn.Module):
    "Writes into its own input"
    def __init__(self, s): super().__init__(); self.lin = nn.Linear(4, D)
    def forward(self, x): return self.lin(x.mul_(2).sub_(.5))
class Words(nn.Module):
    "An embedding, with or without one of places"
    def __init__(self, s):
        super().__init__()
        self.emb,self.pos = nn.Embedding(V, D),nn.Parameter(torch.randn(9, D)) if s.rng.random()<.5 else None
    def forward(self, x, m=None):
        h = self.emb(x)
        return h if self.pos is None else h+self.pos[:x.shape[1]]
class Adapted(nn.Module):
    "Two small trainable matrices beside a frozen embedding"
    def __init__(self, s):
        super().__init__()
        self.base = nn.Embedding(V, D).requires_grad_(False)
        self.down,self.up = nn.Parameter(torch.randn(V, 2)),nn.Parameter(torch.randn(2, D))
        self.layer = s.rng.random()<.5 and nn.Embedding.from_pretrained(torch.randn(V, 2), freeze=False)
    def forward(self, x, m=None): return self.base(x) + (self.layer(x) if self.layer else F.embedding(x, self.down))@self.up
class TwoEmbeddings(nn.Module):
    "Two embeddings of the same words, of which one is looked up by their order"
    def __init__(self, s): super().__init__(); self.a,self.b = nn.Embedding(V, D),nn.Embedding(V, D)
    def forward(self, x, m=None): return self.a(x)+self.b(x.flip(1))
class FlatWords(nn.Module):
    "An embedding of all tokens as one row"
    def __init__(self, s): super().__init__(); self.emb = nn.Embedding(V, D)
    def forward(self, x, m=None): return self.emb(x.flatten()).view(*x.shape, D)
HOW = dict(shifted=lambda c: c+1, clamped=lambda c: c.clamp(max=V-2), copied=lambda c: torch.stack([c,c], 1)[:,0],
    cloned=lambda c: c.clone(),
    int32=lambda c: c.int(), plain=lambda c: c)
class Columns(nn.Module):
    "A table: an embedding for each column of categories, some of them changed before, and numbers"
    def __init__(self, s, how=None):
        super().__init__()
        self.embs = nn.ModuleList(nn.Embedding(V+1, 3) for _ in range(3))
        self.how = [HOW['plain'],HOW[how or s.rng.choice([*HOW])],HOW['plain']]
        self.lin = nn.Linear(9+(4 if s.cont else 0), D)
    def forward(self, c, x=None):
        es = [e(f(c[:,i])) for i,(e,f) in enumerate(zip(self.embs, self.how))]
        return self.lin(torch.cat(es if x is None else [*es,x], 1))[:,None]
class Towers(nn.Module):
    "Two inputs, a tower for each, or one for both"
    def __init__(self, s):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, D), s.act(), nn.Linear(D, D))
        self.b = self.a if s.rng.random()<.3 else nn.Sequential(nn.Linear(4, D), s.act(), nn.Linear(D, D))
        self.how = 'add' if s.affine else s.rng.choice(('add','mul'))
    def forward(self, x, z):
        a,b = self.a(x),self.b(z)
        return a+b if self.how=='add' else a*b

class Net(nn.Module):
    "What comes first, parts, and a head; in some models auxiliary heads, a long skip, rows that are sorted throughout"
    def __init__(self, s):
        super().__init__()
        self.kind,self.sort,self.pool,self.polarity = s.kind,s.sort,s.pool,s.polarity
        self.first,self.parts = s.first(s),nn.ModuleList(p(s) for p in s.parts)
        self.long = nn.Linear(D, D) if s.long else None
        self.aux = nn.Linear(D, K) if s.aux else None
        self.head = nn.Sequential(nn.Linear(D, D), s.act(), nn.Linear(D, K))
        if s.zero: nn.init.zeros_(self.head[2].weight)

    def pooled(self, h, m):
        if self.pool=='last': return h[:,-1]
        if m is None: return h.mean(1)
        w = m[...,None].to(h.dtype)
        return (h*w).sum(1)/w.sum(1).clamp(min=1)

    def forward(self, *xb):
        if self.kind=='dict': xb = tuple(xb[0].values())
        m = seen(xb[1], self.polarity) if self.polarity else None
        if self.sort:
            o = (xb[0]!=0).flatten(1).sum(1).argsort(descending=True) if m is None else m.sum(1).argsort(descending=True)
            xb,m = tuple(x[o] for x in xb),m if m is None else m[o]
        h = self.first(*(xb[:1] if self.polarity else xb))
        h0 = h
        for i,p in enumerate(self.parts):
            h = p(h, m)
            if i==0: mid = h
        if self.long is not None: h = h+self.long(h0)
        res = self.head(self.pooled(h, m))
        if self.sort: res = res[o.argsort()]
        return (res,self.aux(mid.mean(1))) if self.aux is not None and self.training else res

# Masks

MASKS = dict(ones=torch.long, seen=torch.bool, padding=torch.bool, floats=torch.float)
def seen(m, polarity): return ~m if polarity=='padding' else m!=0
def mask_of(m, polarity): return ~m if polarity=='padding' else m.to(MASKS[polarity])

def with_union(s, b):
    "The inputs of a batch with both partners' tokens seen"
    one = s.kind=='dict'
    x,m = b.x[0].values() if one else b.x
    m = seen(m, s.polarity)
    new = x,mask_of(m|m[b.perm], s.polarity)
    return (dict(zip(b.x[0], new)),) if one else new

def run_swapped(model, name, perm, xb):
    "Predictions with the rows that the layer `name` returns put in another order"
    model = deepcopy(model)
    def swap(m, args, out): return rows(out, perm)
    model.get_submodule(name).register_forward_hook(swap)
    with torch.no_grad(): return model(*deepcopy(xb))

def right_masked(s, b):
    """The partner's prediction; that with both partners' tokens seen, from the tokens on; and that from any layer on which carries all
    but the mask, found by trying each layer with every token seen"""
    yield rows(b.plain, b.perm)
    x,m = tuple(with_union(s, b)[0].values()) if s.kind=='dict' else with_union(s, b)
    pack = lambda x, m: (dict(zip(b.x[0], (x,m))),) if s.kind=='dict' else (x,m)
    with torch.no_grad(): yield deepcopy(b.model)(*pack(x[b.perm], m))
    full = mask_of(torch.ones_like(m).bool(), s.polarity)
    with torch.no_grad(): plain = deepcopy(b.model)(*pack(x, full))
    for name,_ in b.model.named_modules():
        if name and near(run_swapped(b.model, name, b.perm, pack(x, full)), rows(plain, b.perm)):
            yield run_swapped(b.model, name, b.perm, pack(x, m))

# Models at random

KINDS = 'vector','floats','tokens','masked','dict','table','towers'
AFFINE = Layer,Skip,Tied,Flat,Stacked,SeqFirst,Tupled,Named,InPlace,Cat,Sorted
BENDS = Steps,Recurrent,Attend,Normed
BENT = *AFFINE,*BENDS
def part_of(p): return p.keywords['inner'] if isinstance(p, partial) else p

def blank(seed):
    "A model with nothing particular about it"
    rng = random.Random(seed)
    affine,kind = rng.random()<.4,rng.choice(KINDS)
    return SimpleNamespace(rng=rng, kind=kind, affine=affine, act=nn.Identity if affine else rng.choice((nn.ReLU,nn.Tanh)), first=None,
        sort=False, long=False,
        aux=False, zero=False, cont=rng.random()<.5, T=rng.choice((3,5,7,8)), pool=rng.choice(('mean','mean','last')),
            polarity=rng.choice([*MASKS]), data='random', focus=None,
        parts=[Layer,*rng.choices(AFFINE if affine else BENT, k=rng.choice((0,1,2)))])

def finish(s):
    "Settle what depends on the rest"
    firsts = dict(vector=Floats, floats=Floats, table=Columns, towers=Towers)
    words = Words,Words,Adapted,TwoEmbeddings,FlatWords
    if s.first is None: s.first = firsts.get(s.kind) or s.rng.choice(words)
    if s.kind not in ('masked','dict'): s.polarity = None
    if s.polarity: s.affine,s.pool = False,'mean'
    if any(part_of(p) in BENDS for p in s.parts): s.affine = False
    return s

def inputs(s, n):
    g = torch.Generator().manual_seed(s.rng.randrange(10**6))
    words = torch.randint(1, V, (n, s.T), generator=g)
    if s.kind=='vector': return torch.randn(n, 4, generator=g),
    if s.kind=='floats': return torch.randn(n, s.T, 4, generator=g),
    if s.kind=='tokens': return words,
    if s.kind=='towers': return tuple(torch.randn(n, s.T, 4, generator=g) for _ in 'ab')
    if s.kind=='table': return (torch.randint(0, V-1, (n, 3), generator=g),*([torch.randn(n, 4, generator=g)] if s.cont else []))
    m = torch.arange(s.T)<torch.randint(1, s.T+1, (n,1), generator=g)
    if s.data=='padding later': m[:N] = True
    x,m = words*m,mask_of(m, s.polarity)
    return (dict(ids=x, mask=m),) if s.kind=='dict' else (x,m)

def alike(o): return tree_map(lambda t: torch.cat([t[:1].expand_as(t[:N]),t[N:]]), o)
def ordered(s, xb):
    "The first batch sorted as the model would"
    m = seen(xb[1], s.polarity) if s.polarity and s.kind!='dict' else xb[0]!=0
    o = m[:N].flatten(1).sum(1).argsort(descending=True)
    return tuple(torch.cat([x[:N][o],x[N:]]) for x in xb)

def data(s):
    "Three batches"
    xb = inputs(s, 3*N)
    if s.kind in ('floats','tokens') and s.sort: # rows of different lengths
        n = torch.randint(1, s.T+1, (3*N,1))
        keep = torch.arange(s.T)<n
        xb = (xb[0]*(keep if s.kind=='tokens' else keep[...,None]),)
    if s.data=='alike first': xb = tuple(map(alike, xb))
    if s.data=='sorted first': xb = ordered(s, xb)
    return cut(N, *xb, torch.randint(0, K, (3*N,)))

def sequences(s): s.kind = s.rng.choice(('floats','tokens'))
def has(part, **kw):
    "A model with the part `part`"
    def f(s):
        sequences(s)
        s.focus = s.rng.randrange(len(s.parts)+1)
        s.parts.insert(s.focus, part)
        for k,v in kw.items(): setattr(s, k, v)
    return f
def kind(k, first=None, **kw):
    def f(s):
        s.kind,s.first = k,first
        for i,v in kw.items(): setattr(s, i, v)
    return f
def skip_over(part): return partial(Skip, inner=part)
def bent(s): s.affine,s.act = False,s.rng.choice((nn.ReLU,nn.Tanh))
def both(*fs):
    def f(s):
        for o in fs: o(s)
    return f
def columns(how): return kind('table', partial(Columns, how=how))
def setting(**kw):
    def f(s):
        for k,v in kw.items(): setattr(s, k, v)
    return f

FEATURES = {
    'nothing in particular': lambda s: None,
    'a skip around a layer': has(Skip),
    'a layer whose input is kept beside its output': has(Cat),
    'a long skip from the first layer to the head': both(sequences, setting(long=True)),
    'a layer called several times': has(Tied),
    'a cell called once for each step': has(Steps),
    'a recurrent layer': has(Recurrent),
    'a recurrent layer within a skip': has(skip_over(Recurrent)),
    'rows sorted around a layer': has(Sorted),
    'rows sorted throughout': both(sequences, setting(sort=True)),
    'rows sorted throughout, those of the first batch sorted already': both(sequences, setting(sort=True, data='sorted first')),
    'tokens of all samples in one row': has(Flat),
    'two views stacked into one batch': has(Stacked),
    'a layer whose batch comes second': has(SeqFirst),
    'attention within a skip': has(Attend),
    'a named tuple between layers': has(Tupled),
    'a dict between layers': has(Named),
    'layers that write in place': has(InPlace),
    'a model that writes into its input': kind('floats', Writes),
    'statistics of the batch': has(Normed),
    'a low-rank adapter beside a frozen embedding': kind('tokens', Adapted),
    'two embeddings of the same words': kind('tokens', TwoEmbeddings),
    'an embedding of all tokens in one row': kind('tokens', FlatWords),
    'a mask of ones and zeros': both(kind('masked', polarity='ones'), bent),
    'a Boolean mask of what is seen': both(kind('masked', polarity='seen'), bent),
    'a Boolean mask of what is padding': both(kind('masked', polarity='padding'), bent),
    'a mask of floats': both(kind('masked', polarity='floats'), bent),
    'a mask by name in a dict': both(kind('dict'), bent),
    'attention under a mask': both(has(Attend), kind('masked'), bent),
    'padding that comes only in later batches': both(kind('masked', data='padding later'), bent),
    'rows sorted by their masks': both(kind('masked', sort=True), bent),
    'a column that is shifted': columns('shifted'),
    'a column that is clamped': columns('clamped'),
    'a column that is copied': columns('copied'),
    'a column that is cloned': columns('cloned'),
    'categories beside numbers': kind('table', cont=True),
    'two towers': kind('towers'),
    'an auxiliary head in training': setting(aux=True),
    'a head that is zero at first': both(has(Skip), setting(zero=True)),
    'a first batch of equal samples': both(has(Skip), setting(data='alike first')),
    'a first batch of equal samples, rows sorted': both(sequences, setting(data='alike first', sort=True)),
    'a MixHere between layers': has(Here),
    'a MixHere within a skip': has(skip_over(Here)),
    'a layer that runs in every other batch': has(Dropped),
}

def aux_loss(o, y): return F.cross_entropy(o[0], y)+.4*F.cross_entropy(o[1], y) if isinstance(o, tuple) else F.cross_entropy(o, y)
def fill_head(s):
    "Training fills a head that was zero at first"
    def late(model, i):
        if i==1: model.head[2].weight.data.copy_(torch.randn(K, D, generator=torch.Generator().manual_seed(1)))
    return late if s.zero else None

def outcome(s, mixer, right):
    "What became of a fit of the model `s` with `mixer`"
    torch.manual_seed(s.seed)
    model,bs = Net(s),data(s)
    log = watch(model, bs, aux_loss if s.aux else nn.CrossEntropyLoss(), mixer, n_inp=len(bs[0])-1, late=fill_head(s))
    words = (*oracle.PLACES, 'alike', 'could not be', 'not tested') if s.data=='alike first' or s.zero else oracle.PLACES
    return verdict(log, right, words)

def again(s):
    "The same choices once more"
    return SimpleNamespace(**{**vars(s), 'rng':random.Random(s.seed)})

def mixers(s):
    "Name, mixer, and what is right"
    swap,right = partial(oracle.with_lam, value=0.),partial(right_masked, s) if s.polarity else oracle.swapped
    layers = [k for k,_ in Net(again(s)).named_modules() if k and k!='parts']
    near_by = layers if s.focus is None else [k for k in layers if k.startswith(f'parts.{s.focus}')]
    named = {s.rng.choice(near_by):0, s.rng.choice(near_by):0, s.rng.choice(layers):0}
    yield 'MixUp',swap(MixUp)(8.),right
    yield 'ManifoldMixUp',swap(ManifoldMixUp)(8., mix_input=False),right
    for k in named: yield f'ManifoldMixUp at {k}',swap(ManifoldMixUp)(8., layers=k, mix_input=False),right
    if not s.affine: return
    first = next(iter(named))
    linear = lambda b: [at(b, b.plain)]
    yield 'MixUp, interpolated',MixUp(8.),linear
    yield 'ManifoldMixUp, interpolated',ManifoldMixUp(8., mix_input=False),linear
    yield f'ManifoldMixUp at {first}, interpolated',ManifoldMixUp(8., layers=first, mix_input=False),linear

def describe(s):
    parts = [f'Skip({part_of(p).__name__})' if isinstance(p, partial) else p.__name__ for p in s.parts]
    return f"model {s.seed}: {s.kind}, T={s.T}, {', '.join(parts)}"

def tells_rows_apart(s):
    "Do the model's predictions follow the rows of its inputs, and differ between them? Then the swap has something to say of it"
    torch.manual_seed(s.seed)
    model,bs = Net(s),data(s)
    if s.zero: fill_head(s)(model, 1)
    perm = torch.arange(N).roll(1)
    with torch.no_grad(): a,b = (deepcopy(model)(*deepcopy(x)) for x in (bs[-1][:-1],tree_map(lambda t: t[perm], bs[-1][:-1])))
    assert near(b, rows(a, perm)), f'{describe(s)}: its rows are not independent'
    return not near(a, rows(a, perm), .05)

def models(feature):
    "No end of models with `feature`"
    for i in count(1000*[*FEATURES].index(feature)):
        s = blank(i)
        s.seed = s.rng.randrange(10**6)
        FEATURES[feature](s)
        s = finish(s)
        if tells_rows_apart(again(s)): yield s

@pytest.fixture(scope='module', autouse=True)
def counted():
    yield
    print('\n'+'\n'.join(f'{k}: {n}' for k,n in sorted(FOUND.items())))

@pytest.mark.parametrize('feature', FEATURES)
def test_a_model_with(feature):
    "Its predictions follow its labels, or the fit was refused or announced"
    bad,good = [],Counter()
    for s in islice(models(feature), MANY):
        FOUND['models'] += 1
        for name,mixer,right in mixers(s):
            res = outcome(again(s), mixer, right)
            what,of = res.split(' ')[0],name.split(' at ')[0].split(',')[0]+(' at a named layer' if ' at ' in name else '')
            FOUND[f'{of}: {what}'] += 1
            good[of] += what=='right'
            if what not in ('right','refused','warned'): bad.append(f'{describe(s)}, {name}: {res}')
    assert not bad, f'{len(bad)} fits of {MANY} models:\n'+'\n'.join(bad)

def test_most_of_these_models_are_mixed():
    "A refusal is right where nothing else can be done, not as a rule"
    if FOUND['models']<len(FEATURES)*MANY: pytest.skip('needs the tests above')
    for k,least in (('MixUp',.7),('ManifoldMixUp',.7),('ManifoldMixUp at a named layer',.4)):
        n = sum(v for o,v in FOUND.items() if o.startswith(f'{k}:'))
        assert FOUND[f'{k}: right']>=least*n, f"{k}: {FOUND[f'{k}: right']} of {n} fits"

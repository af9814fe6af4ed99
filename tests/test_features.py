"What else people mix, each against a slow oracle that knows only the plain batch and what was drawn for it"
import itertools, warnings, pytest, torch, torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map
from fastai.basics import Callback, DataLoaders, Learner
from fastai.callback.training import GradientAccumulation
from fastai.losses import CrossEntropyLossFlat
import fastmix.all as fm
from helpers import fit

def loaders(x, y, bs=8):
    "The same batches for training and validation; `x` and `y` are Tensors or tuples of them"
    xs,ys = (o if isinstance(o, tuple) else (o,) for o in (x,y))
    dls = DataLoaders.from_dsets(*[list(zip(*xs, *ys))]*2, bs=bs, device='cpu', num_workers=0, shuffle=(False,False))
    dls.n_inp = len(xs)
    return dls

class Watch(Callback):
    "Keep each training batch: plain inputs and targets, what the model was given, and what was drawn"
    order,run_valid = -5,False
    def __init__(self): self.seen,self.losses = [],[]
    def before_batch(self): self.plain = self.xb,self.yb
    def after_pred(self): self.given = self.xb,self.yb
    def after_loss(self):
        m = self.learn.mixer
        boxes = None if m.boxes is None else m.boxes.expand(len(m.perm), -1, -1).tolist()
        lam = m.lam.expand(len(m.perm)) if m.lam is not None else None
        self.losses.append(self.learn.loss.item())
        self.seen.append((*self.plain, *self.given, self.learn.pred, m.perm, lam, boxes))

def watched(x, y, mixer, model, loss_func, *cbs, n=1, said=None, **kw):
    "All training batches of a fit; `said` gathers its warnings"
    learn,w = Learner(loaders(x, y), model, loss_func=loss_func, cbs=[mixer,*cbs], **kw),Watch()
    learn.recorder.train_metrics = True
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter('always')
        fit(learn, n, lr=1e-2, cbs=w)
    if said is not None: said += [str(o.message) for o in warned]
    learn.losses = w.losses
    return learn,w.seen

# Accuracy

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a,self.b = nn.Linear(6,3),nn.Linear(6,8)
    def forward(self, x): return dict(a=self.a(x), b=self.b(x).view(-1,2,4)) # classes of `b` in dimension 1

def heads_loss(pred, y): return F.cross_entropy(pred['a'], y['a']) + F.cross_entropy(pred['b'], y['b'], ignore_index=-1)

@pytest.mark.parametrize('accumulate', (False,True))
@pytest.mark.parametrize('mixer', (fm.MixUp(4.),fm.MixUp(4., p=.5),fm.MixChoice(fm.MixUp(1.), None)))
def test_accuracy_of_heads_counts_each_share(mixer, accumulate):
    x = torch.randn(64, 6)
    y = [dict(a=a, b=b) for a,b in zip(torch.randint(0,3,(64,)), torch.randint(-1,2,(64,4)))]
    dls = DataLoaders.from_dsets(*[list(zip(x,y))]*2, bs=8, device='cpu', num_workers=0, shuffle=(False,False))
    metrics = [fm.MixAccuracy(target='a'),fm.MixAccuracy(axis=1, target='b', ignore_index=-1)]
    learn,w = Learner(dls, Heads(), loss_func=heads_loss, cbs=[mixer] + [GradientAccumulation(24)]*accumulate, metrics=metrics),Watch()
    learn.recorder.train_metrics = True
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(learn, 1, lr=1e-2, cbs=w)
    right,count = dict(a=0.,b=0.),dict(a=0.,b=0.)
    for _,(y,),_,_,pred,perm,lam,_ in w.seen:
        for i in range(8):
            share = 1. if lam is None else lam[i].item()
            parts = [(i,share)] + ([] if lam is None else [(perm[i].item(),1-share)])
            for j,s in parts:
                right['a'] += s*(pred['a'][i].argmax()==y['a'][j]).item()
                count['a'] += s
                for t in range(4):
                    if y['b'][j,t]==-1: continue
                    right['b'] += s*(pred['b'][i,:,t].argmax()==y['b'][j,t]).item()
                    count['b'] += s
    names,got = learn.recorder.metric_names[1:],learn.recorder.values[-1]
    for k in 'ab': assert got[names.index(f'train_mix_accuracy_{k}')]==pytest.approx(right[k]/count[k], abs=1e-4)

@pytest.mark.parametrize('y,n_out,word', ((torch.randn(16,1),1,'counts classes'), (torch.rand(16,3),3,'counts classes'),
    (torch.randint(0,2,(16,3)),3,'accuracy_multi'), (torch.rand(16,3)>.5,3,'accuracy_multi'), (torch.randint(0,2,(16,)),1,'single score')))
def test_accuracy_of_what_has_no_classes_is_refused(y, n_out, word):
    with pytest.raises((TypeError,ValueError), match=word):
        watched(torch.randn(16,4), y, fm.MixUp(per_sample=False), nn.Linear(4,n_out), lambda p,t: p.sum(), metrics=fm.MixAccuracy())

def test_accuracy_of_the_second_of_two_targets():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a,self.b = nn.Linear(4,1),nn.Linear(4,3)
        def forward(self, x): return self.a(x),self.b(x)
    value,group = torch.randn(16,1),torch.randint(0,3,(16,))
    learn,seen = watched(torch.randn(16,4), (value,group), fm.MixUp(4., per_sample=False), Two(),
        lambda p,v,c: F.mse_loss(p[0], v) + F.cross_entropy(p[1], c), metrics=fm.MixAccuracy(target=1))
    hits = [l*(p.argmax()==c).item() + (1-l)*(p.argmax()==y[1][j]).item() for _,y,_,_,pred,perm,lam,_ in seen
        for l,p,c,j in zip(lam.tolist(), pred[1], y[1], perm)]
    assert learn.recorder.values[-1][1]==pytest.approx(sum(hits)/len(hits), abs=1e-5)
    with pytest.raises(TypeError, match='counts classes'):
        watched(torch.randn(16,4), (value,group), fm.MixUp(per_sample=False), Two(), lambda p,v,c: p[0].sum(), metrics=fm.MixAccuracy())

class Fixed(nn.Module):
    "These predictions, whatever the input, and one weight"
    def __init__(self, pred):
        super().__init__()
        self.pred,self.w = pred,nn.Parameter(torch.zeros(()))
    def forward(self, x): return tree_map(lambda o: o+self.w, self.pred)

def accuracies(pred, y, /, loss=lambda p,*y: tree_leaves(p)[0].sum(), **kw):
    "Accuracy over one mixed batch, what was drawn for it, and over the same batch unmixed"
    n = len(tree_leaves(y)[0])
    rows = [tree_map(lambda o: o[i], y) for i in range(n)]
    dls = DataLoaders.from_dsets(*[[(torch.randn(4),*(r if isinstance(r, tuple) else (r,))) for r in rows]]*2, bs=n, device='cpu', num_workers=0,
        shuffle=(False,False))
    dls.n_inp = 1
    learn = Learner(dls, Fixed(pred), loss_func=loss, cbs=fm.MixUp(4., per_sample=False), metrics=fm.MixAccuracy(**kw))
    learn.recorder.train_metrics = True
    fit(learn, 1, lr=0.)
    return learn.recorder.values[0][1],learn.mixer,learn.recorder.values[0][3]

AGE,SEX = torch.tensor([0,1,2,0]),torch.tensor([1,1,0,2])
def scores(y): return F.one_hot(y, 3)*9.
HEADS = [ # predictions of which those of AGE are right, targets, settings, the target that is right
    (dict(sex=scores(SEX), age=scores(AGE)), dict(age=AGE, sex=SEX), {}, AGE),
    (dict(sex=scores(SEX), age=scores(AGE)), dict(age=AGE, sex=SEX), dict(target=1), SEX),
    (dict(sex=scores(SEX), age=scores(AGE)), dict(age=AGE, sex=SEX), dict(target='age'), AGE),
    (dict(features=torch.randn(4,3), sex=scores(SEX), age=scores(AGE)), dict(age=AGE, sex=SEX), dict(target='sex'), SEX),
    (dict(features=torch.randn(4,3), logits=scores(AGE)), AGE, dict(pred='logits'), AGE), ((torch.randn(4,8),scores(AGE)), AGE, dict(pred=1), AGE),
    ((scores(AGE),scores(SEX)), (AGE,SEX), dict(target=1), SEX), ((scores(SEX),scores(AGE)), (AGE,SEX), dict(target=1, pred=0), SEX),
    (dict(a=scores(SEX), b=scores(AGE)), (AGE,SEX), dict(pred='b'), AGE), ((dict(cls=scores(AGE)),dict(cls=scores(SEX))), ({'cls':AGE},{'cls':SEX}), dict(target=1), SEX),
    (dict(logits=scores(AGE)), AGE, {}, AGE), ([scores(AGE)], AGE, {}, AGE)]

@pytest.mark.parametrize('pred,y,kw,right', HEADS)
@pytest.mark.filterwarnings('ignore')
def test_accuracy_is_that_of_the_prediction_for_the_target(pred, y, kw, right):
    got,m,valid = accuracies(pred, y, **kw)
    assert valid==1
    lam = m.lam.item()
    assert got==pytest.approx(sum(1. if a==b else lam for a,b in zip(right.tolist(), right[m.perm].tolist()))/4, abs=1e-6)

@pytest.mark.parametrize('pred,y,kw,words', (
    (dict(features=torch.randn(4,3), logits=scores(AGE)), AGE, {}, ('features','logits','pred=')), ((torch.randn(4,3),scores(AGE)), AGE, {}, ('pred=',)),
    (dict(features=torch.randn(4,3), logits=scores(AGE)), AGE, dict(target='logits'), ("target='logits'",'pred=')),
    (dict(a=scores(AGE), b=scores(SEX)), (AGE,SEX), {}, ('a (torch','pred=')), ((scores(AGE),scores(SEX),scores(SEX)), (AGE,SEX), dict(target=1), ('pred=',)),
    ((scores(AGE),scores(SEX)), (AGE,SEX), dict(pred=2), ('pred=2',)), (scores(AGE), AGE, dict(pred='age'), ("pred='age'",))))
@pytest.mark.filterwarnings('ignore')
def test_accuracy_asks_which_prediction_belongs_to_a_target(pred, y, kw, words):
    with pytest.raises(ValueError) as e: accuracies(pred, y, **kw)
    assert all(w in str(e.value) for w in words)

def test_accuracy_of_one_head_each_has_a_name_of_its_own():
    kws = {},dict(target=1),dict(pred=1),dict(target='a'),dict(target=1, pred=0),dict(target='a', pred='b')
    assert len({fm.MixAccuracy(**kw).name for kw in kws})==len(kws)
    for bad in (-1,True,1.): pytest.raises(TypeError, fm.MixAccuracy, pred=bad)

@pytest.mark.parametrize('per_sample', (False,None))
@pytest.mark.parametrize('shape,axis', (((8,6),-1),((8,6),1),((8,2,3),-1)))
@pytest.mark.parametrize('flat', (False,True))
def test_accuracy_of_predictions_that_the_loss_flattens(per_sample, shape, axis, flat):
    "A row of classes for each step, and as many targets in any shape"
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = nn.Linear(5,4)
        def forward(self, x): return self.l(x).flatten(0,-2) if flat else self.l(x).movedim(-1,axis)
    loss = CrossEntropyLossFlat() if flat or axis==-1 else nn.CrossEntropyLoss()
    learn,seen = watched(torch.randn(16,*shape[1:],5), torch.randint(0,4,(16,*shape[1:])), fm.MixUp(4., per_sample=per_sample), Tagger(), loss,
        metrics=fm.MixAccuracy(axis=-1 if flat else axis, ignore_index=3))
    right = count = 0.
    for _,(y,),_,_,pred,perm,lam,_ in seen:
        guess = (pred if flat else pred.movedim(axis,-1)).argmax(-1).reshape(shape)
        for at in itertools.product(*map(range, shape)):
            for t,w in ((y[at],lam[at[0]].item()),(y[(perm[at[0]],*at[1:])],1-lam[at[0]].item())):
                right,count = right + w*(guess[at]==t!=3).item(),count + w*(t!=3).item()
    assert learn.recorder.values[-1][1]==pytest.approx(right/count, abs=1e-4)

# Dimensions that are cut

DIMS = [ # shape of a batch of 8, dims
    ((3,4,6,6),(-2,-1)), ((4,3,6,6),(-2,-1)), ((3,4,6,6),(2,3,4)), ((4,3,6,6),(1,3,4)), ((3,4,6,6),2), ((1,6,9),-1), ((1,6,9),-2), ((1,6,9),(2,3)),
    ((9,5),1), ((9,5),2), ((9,),1), ((2,3,4,5,6),(-2,-1))]

def positive(dims, ndim): return sorted(d%ndim for d in ((dims,) if isinstance(dims, int) else dims))

def inside_box(shape, dims, box):
    "Bool of this shape: is this entry of a sample in the box? An index at a time"
    res = torch.zeros(shape, dtype=torch.bool)
    for at in torch.cartesian_prod(*map(torch.arange, shape)).view(-1, len(shape)).tolist():
        res[tuple(at)] = all(lo<=at[d-1]<hi for d,(lo,hi) in zip(dims,box))
    return res

@pytest.mark.parametrize('shape,dims', DIMS)
@pytest.mark.parametrize('kw', ({}, dict(length=.5), dict(per_sample=False)))
def test_a_cut_along_dims_is_that_of_its_definition(shape, dims, kw):
    x,y = torch.randn(16, *shape),torch.randint(0,3,(16,))
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    model(x)
    learn,seen = watched(x, y, fm.CutMix(dims=dims, masks=(), **kw), model, nn.CrossEntropyLoss())
    for loss,((x0,),(y0,),(xm,),_,pred,perm,lam,boxes) in zip(learn.losses,seen):
        own,other = (F.cross_entropy(pred, t, reduction='none') for t in (y0,y0[perm]))
        assert loss==pytest.approx((lam*own + (1-lam)*other).mean().item(), abs=1e-5)
        for i,j in enumerate(perm.tolist()):
            inside = inside_box(shape, positive(dims, len(shape)+1), boxes[i])
            assert torch.equal(xm[i], torch.where(inside, x0[j], x0[i]))
            assert lam[i].item()==pytest.approx(1-inside.float().mean().item(), abs=1e-6)

@pytest.mark.parametrize('mixer', (fm.FMix,fm.ResizeMix))
@pytest.mark.parametrize('shape,dims', DIMS)
def test_other_layouts_are_cut_like_the_usual_one(mixer, shape, dims):
    "The same draws for the same sizes, the other dimensions one by one"
    x,y = torch.randn(16, *shape),torch.randint(0,3,(16,))
    ds = positive(dims, x.ndim)
    last = tuple(range(-len(ds), 0))
    kw = {} if mixer is fm.ResizeMix else dict(alpha=1.)
    def run(x, **more):
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
        model(x)
        return watched(x, y, mixer(generator=torch.Generator().manual_seed(3), masks=(), **kw, **more), model, nn.CrossEntropyLoss())[1]
    usual = x.movedim(ds, last).reshape(16, -1, *[x.shape[d] for d in ds])
    for (_,_,(got,),_,_,p,lam,_),(_,_,(want,),_,_,q,lam1,_) in zip(run(x, dims=dims), run(usual)):
        assert torch.equal(p, q) and torch.equal(lam, lam1)
        torch.testing.assert_close(got.movedim(ds, last).reshape(want.shape), want)

class Steps(nn.Module):
    "Predictions for each step of features `(B,T,F)`: as `(B,T)` or `(B,K,T)` or `(B,T,K)`"
    def __init__(self, shape):
        super().__init__()
        self.net,self.shape = nn.Linear(5,min(shape) if len(shape)>1 else 1),shape
    def forward(self, x):
        p = self.net(x)
        return p[...,0] if len(self.shape)==1 else p if self.shape[0]==9 else p.transpose(1,2)

@pytest.mark.parametrize('shape', ((9,),(2,9),(9,2)))
@pytest.mark.parametrize('dtype', (torch.float32,torch.bool,torch.int64))
@pytest.mark.parametrize('mixer', (fm.CutMix,fm.FMix))
def test_targets_along_the_cut_are_pasted(shape, dtype, mixer):
    x = torch.randn(16, 9, 5)
    y = (torch.randn(16, *shape)*3).to(dtype)
    _,seen = watched(x, y, mixer(dims=1, masks=0), Steps(shape), lambda p,t: F.mse_loss(p, t.float()))
    t = shape.index(9)
    for (x0,),(y0,),(xm,),(ym,),pred,perm,lam,_ in seen:
        for i,j in enumerate(perm.tolist()):
            for step in range(9):
                own,other = (torch.equal(xm[i,step], x0[k,step]) for k in (i,j))
                assert own!=other or torch.equal(x0[i,step], x0[j,step])
                at = (slice(None),)*t+(step,)
                assert torch.equal(ym[i][at], y0[i if own else j][at])

WHERE = [ # shape of an input, dims, shape of a target, along which of its dimensions it is cut
    ((48,5),1,(4,48),(2,)), ((48,5),1,(48,4),(1,)), ((48,5),1,(16,48),(2,)), ((1,32,48),-1,(48,3),(1,)), ((1,32,48),-1,(3,48),(2,)),
    ((1,32,48),-2,(32,4),(1,)), ((3,6,8,8),2,(6,4),(1,)), ((3,6,8,8),2,(6,8,8),(1,)), ((6,3,8,8),(1,3,4),(6,8,8),(1,2,3)), ((6,3,8,8),1,(6,8,8),(1,)),
    ((3,8,8),None,(8,8,4),(1,2)), ((3,8,8),None,(4,8,8),(2,3)), ((8,8,3),(1,2),(4,8,8),(2,3)), ((8,8,3),(1,2),(8,8,4),(1,2)), ((1,48),None,(48,4),(1,))]

@pytest.mark.parametrize('shape,dims,y_shape,along', WHERE)
@pytest.mark.parametrize('mixer', (fm.CutMix,fm.FMix))
@pytest.mark.parametrize('named', (False,True))
def test_classes_stand_before_or_behind_the_dimensions_that_are_cut(shape, dims, y_shape, along, mixer, named):
    "Entries are the numbers of their samples, also where the number of classes divides the size that is cut"
    x,y = (torch.arange(8).view(8, *[1]*len(s)).expand(8, *s).contiguous() for s in (shape,y_shape))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with fm.PlainLoop(mixer(alpha=4., dims=dims, masks=0 if named else None), nn.Linear(1,1), nn.CrossEntropyLoss()) as loop: b = loop(x.float(), y)
    ym, = b.yb
    assert b.plans==['paste'] and (ym!=y).any()
    assert tuple(d for d in range(1, ym.ndim) if (ym!=ym.select(d, 0).unsqueeze(d)).any())==along
    torch.testing.assert_close((ym==y).flatten(1).float().mean(1), b.lam)

@pytest.mark.parametrize('shape,dims', (((48,5),1),((1,48),None),((1,32,48),-1)))
def test_a_target_that_can_be_cut_along_either_dimension_is_said(shape, dims):
    with pytest.warns(UserWarning, match='its steps may be those of'):
        with fm.PlainLoop(fm.CutMix(dims=dims, masks=0), nn.Linear(1,1), nn.CrossEntropyLoss()) as loop: loop(torch.rand(8, *shape), torch.zeros(8,48,48).long())

STEPS = [ # shape of an input, dims, shape of a target that is weighed by the share, what is said of it
    ((1,6,24),None,(24,),'dims=3'), ((1,6,24),None,(6,),'dims=2'), ((3,4,6,6),(2,3,4),(4,),'dims=2'), ((1,24),None,(12,5),'masks='), ((24,5),1,(12,7),'masks='),
    ((1,6,24),None,(5,),''), ((1,24),None,(12,),'masks=0'), ((1,24),None,(7,),''), ((20,64),None,(20,),'dims=1'), ((20,64),2,(20,),''), ((3,64),None,(3,),''), ((3,4,6,6),(-2,-1),(4,),'')]

@pytest.mark.parametrize('shape,dims,y_shape,word', STEPS)
@pytest.mark.parametrize('masks', (None,()))
def test_labels_of_steps_that_are_not_pasted_are_said(shape, dims, y_shape, word, masks):
    x,y = torch.randn(8, *shape),torch.randint(0, 2, (8,*y_shape))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        with fm.PlainLoop(fm.CutMix(dims=dims, masks=masks), nn.Linear(1,1), nn.CrossEntropyLoss()) as loop: b = loop(x, y)
    said = [str(o.message) for o in said if 'share of the whole' in str(o.message)]
    assert b.plans==['pair'] and len(said)==(word!='' and masks is None)
    for o in said: assert word in o

def test_targets_beside_the_cut_are_weighed_by_the_share():
    "Of a label a clip and a value a step only the latter is pasted"
    x,y,z = torch.randn(16, 9, 5),torch.randint(0,3,(16,)),torch.randn(16,9)
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.a,self.b = nn.Linear(5,3),nn.Linear(5,1)
        def forward(self, x): return self.a(x.mean(1)),self.b(x)[...,0]
    def loss(p, y, z): return F.cross_entropy(p[0], y) + F.mse_loss(p[1], z)
    said = []
    learn,seen = watched(x, (y,z), fm.CutMix(dims=1, per_sample=False), Both(), loss, said=said)
    assert sum('takes target 1' in o for o in said)==1
    losses = []
    for (x0,),(y0,z0),(xm,),_,pred,perm,lam,boxes in seen:
        lo,hi = boxes[0][0]
        zm = torch.stack([torch.cat([z0[i,:lo],z0[j,lo:hi],z0[i,hi:]]) for i,j in enumerate(perm.tolist())])
        l = 1-(hi-lo)/9
        assert torch.equal(xm[:,lo:hi], x0[perm][:,lo:hi])
        losses.append((l*loss(pred, y0, zm) + (1-l)*loss(pred, y0[perm], zm)).item())
    assert learn.losses==pytest.approx(losses, abs=1e-5)

@pytest.mark.parametrize('shape,word', (((4,3,6,6),'dims=\\(-2,-1\\)'), ((3,4,6,6),'dims=\\(-2,-1\\)'), ((6,6,3),'dims=\\(1,2\\)'), ((9,4),'dims=1')))
@pytest.mark.parametrize('mixer', (fm.CutMix,fm.FMix))
def test_a_layout_that_can_be_read_in_two_ways_is_said_once(shape, word, mixer):
    import re
    x,y = torch.randn(16, *shape),torch.randint(0,3,(16,))
    default = 2 if len(shape)==2 else tuple(range(2, len(shape)+1))
    for dims,n in ((None,1),(default,0)):
        said = []
        watched(x, y, mixer(dims=dims, masks=()), nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3)), nn.CrossEntropyLoss(), n=2, said=said)
        assert sum(bool(re.search(word, o)) for o in said)==n

@pytest.mark.parametrize('dims,error', ((0,ValueError), ((2,2),ValueError), (5,ValueError), ('2',TypeError), (True,TypeError), ((),TypeError)))
def test_wrong_dims_are_refused(dims, error):
    with pytest.raises(error, match='dims'):
        watched(torch.randn(8,3,4,4), torch.zeros(8).long(), fm.CutMix(dims=dims), nn.Linear(4,3), nn.CrossEntropyLoss())

class Any(nn.Module):
    "Embeds indices, takes floats as they are, and adds up what it makes of each input"
    def __init__(self, *xs):
        super().__init__()
        self.nets = nn.ModuleList(nn.Linear(o[0].numel(), 3) if o.is_floating_point() else nn.Embedding(9,3) for o in xs)
    def forward(self, *xs): return sum(f(o.flatten(1)) if o.is_floating_point() else f(o).reshape(len(o),-1,3).mean(1) for f,o in zip(self.nets,xs))

BESIDE = [ # shape of what is cut, dims, shape and dtype of another input that is not pasted, is that said?
    ((12,5),1,(12,),torch.int64,1), ((3,8,8),None,(8,8),torch.int64,1), ((3,8,8),None,(4,4),torch.int64,1), ((1,6,12),-1,(12,),torch.int64,1), ((1,12),None,(12,),torch.int32,1),
    ((3,8,8),None,(7,),torch.int64,0), ((3,8,8),None,(7,5),torch.int64,0), ((12,5),1,(),torch.int64,0), ((1,12),None,(4,),torch.int64,0), ((1,64),None,(16,),torch.int64,0),
    ((1,6,12),-1,(192,),torch.float32,1), ((12,5),1,(12,),torch.float32,1), ((1,12),None,(24,),torch.float32,1), ((1,12),None,(7,),torch.float32,0),
    ((1,12),None,(4,),torch.float32,0), ((3,8,8),None,(16,),torch.float32,0), ((3,8,8),None,(8,8),torch.float32,1)]

@pytest.mark.parametrize('shape,dims,other,dtype,n', BESIDE)
@pytest.mark.parametrize('named', (False,True))
def test_what_may_run_along_the_cut_and_is_not_pasted_is_said_once(shape, dims, other, dtype, n, named):
    y = torch.randint(1, 9, (16,*other)).to(dtype)
    xs = torch.randn(16, *shape),y+torch.rand(y.shape) if dtype is torch.float32 else y
    said = []
    watched(xs, torch.arange(16)%3, fm.CutMix(dims=dims, inputs=(0,1) if named else None), Any(*xs), nn.CrossEntropyLoss(), n=2, said=said)
    said = [o for o in said if 'inputs=' in o]
    assert len(said)==(0 if named else n)
    for o in said: assert str((8,*other)) in o and 'what is cut' in o

@pytest.mark.parametrize('mixer', (fm.CutMix,fm.FMix,fm.ResizeMix))
@pytest.mark.parametrize('shape,dims,ys,words', (((1,24),None,((24,),(24,)),('target 0','target 1','masks=(0, 1)')), ((1,24),None,((),(24,)),('target 1','masks=1')),
    ((1,24),None,((24,),(12,)),('target 0','target 1','masks=0','masks=(0, 1)')), ((1,24),None,((12,),(6,)),('target 0','target 1','masks=0','masks=1')),
    ((1,16,16),None,((8,8),(4,4)),('target 0','target 1','masks=(0, 1)','in proportion')), ((1,6,40),-1,((10,),()),('target 0','masks=0')),
    ((20,64),None,((20,),()),('target 0','dims=1')), ((6,3,8,8),None,((6,),()),('target 0','dims=1'))))
def test_every_target_that_may_be_a_mask_is_said_once(mixer, shape, dims, ys, words):
    ys,said = [torch.randint(0, 2, (16,*s)) for s in ys],[]
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))
        def forward(self, x): return x+self.w
    watched(torch.randn(16,*shape), tuple(ys), mixer(dims=dims), Net(), lambda p,*ys: p.mean(), n=2, said=said)
    said = [o for o in said if 'masks=()' in o]
    for w in words: assert sum(w in o for o in said)==1

@pytest.mark.parametrize('y_shape', ((12,),(6,),(48,)))
def test_labels_at_another_rate_are_pasted_where_they_are_named(y_shape):
    x,y = torch.randn(8,1,24),torch.randint(0, 5, (8,*y_shape))
    with fm.PlainLoop(fm.CutMix(masks=0), nn.Identity(), lambda p,y: p.sum()) as loop: b = loop(x, y)
    at = torch.arange(y_shape[0])*24//y_shape[0]
    for i,j in enumerate(b.perm.tolist()):
        lo,hi = b.boxes[i,0].tolist()
        assert torch.equal(b.yb[0][i], torch.where((at>=lo)&(at<hi), y[j], y[i]))

# Masks keep their values

KINDS = dict(codes=lambda *s: torch.randint(-1, 9, s), ids=lambda *s: torch.randint(2**40, 2**41, s), bool=lambda *s: torch.rand(s)>.5,
    complex=lambda *s: torch.randn(s, dtype=torch.complex64))

def shrunk(y, boxes):
    "What a box shows of the whole of `y`: each pixel the one under its centre, in whole numbers"
    idx = [[(2*(a-lo)+1)*s//(2*(hi-lo)) for a in range(lo, hi)] for s,(lo,hi) in zip(y.shape[-len(boxes):],boxes)]
    for d,at in enumerate(idx): y = y.index_select(d-len(boxes), torch.tensor(at, dtype=torch.long))
    return y

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape,y_shape', (((3,9,12),(9,12)), ((3,9,12),(1,9,12)), ((2,12),(12,)), ((1,5,6,7),(5,6,7)), ((3,18,12),(9,6))))
def test_a_shrunken_mask_has_values_of_masks_only(kind, shape, y_shape):
    x,y = torch.randn(8, *shape),KINDS[kind](8, *y_shape)
    with fm.PlainLoop(fm.ResizeMix(masks=0), nn.Identity(), lambda p,y: p.sum()) as loop: b = loop(x, y)
    D = len(shape)-1
    scale = [s//t for s,t in zip(shape[1:],y_shape[-D:])]
    for i,j in enumerate(b.perm.tolist()):
        box = [(lo//s,hi//s) for (lo,hi),s in zip(b.boxes[i].tolist(),scale)]
        want = y[i].clone()
        want[(...,*[slice(*o) for o in box])] = shrunk(y[j], box)
        assert torch.equal(b.yb[0][i], want)

def test_images_are_shrunk_bilinearly_among_inputs_and_targets():
    x = torch.randn(4,1,8,8, requires_grad=True)
    with fm.PlainLoop(fm.ResizeMix(lo=.5, hi=.5), nn.Identity(), lambda p,y: y.sum()) as loop: b = loop(x, x[:,0])
    want = []
    for i,j in enumerate(b.perm.tolist()):
        (a,c),(d,e) = b.boxes[i].tolist()
        inside = torch.zeros(1,8,8, dtype=torch.bool)
        inside[:,a:c,d:e] = True
        small = F.interpolate(x[j][None], (4,4), mode='bilinear', align_corners=False)[0]
        want.append(torch.where(inside, F.pad(small, (d,8-e,a,8-c)), x[i]))
    torch.testing.assert_close(b.xb[0], torch.stack(want))
    torch.testing.assert_close(b.yb[0], torch.stack(want)[:,0])
    w = torch.randn(4,8,8)
    torch.testing.assert_close(*[torch.autograd.grad((w*o).sum(), x, retain_graph=True)[0] for o in (b.yb[0],torch.stack(want)[:,0])])

@pytest.mark.parametrize('y,words', ((torch.randint(-1, 5, (8,6,6)).float(),'make codes of classes integers'), (torch.rand(8,6,6),''),
    (torch.randint(2, (8,6,6)).float(),'')))
def test_codes_in_floats_of_a_shrunken_mask_are_said(y, words):
    learn = Learner(loaders(torch.randn(8,1,6,6), y), nn.Conv2d(1,1,1), loss_func=lambda p,y: (p[:,0]-y).square().mean(), cbs=fm.ResizeMix())
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always')
        fit(learn)
    assert any('make codes of classes integers' in str(o.message) for o in w)==bool(words)

def test_codes_in_floats_are_said_of_a_later_batch_and_of_a_choice_too():
    y = torch.cat([torch.zeros(8,6,6),torch.randint(2, 5, (8,6,6)).float()])
    for mixer in (fm.ResizeMix(),fm.MixChoice(fm.ResizeMix(), fm.CutMix(), per_sample=True)):
        learn = Learner(loaders(torch.randn(16,1,6,6), y), nn.Conv2d(1,1,1), loss_func=lambda p,y: (p[:,0]-y).square().mean(), cbs=mixer)
        with warnings.catch_warnings(record=True) as w:
            warnings.simplefilter('always')
            fit(learn)
        assert sum('make codes of classes integers' in str(o.message) for o in w)==1

@pytest.mark.parametrize('dtype', (torch.float32,torch.bool,torch.int64))
def test_a_shrunken_padding_mask_shows_or_hides(dtype):
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.l = nn.Linear(5,3)
        def forward(self, x, m): return self.l((x.tanh()*m.float()[...,None]).sum(1)/m.float().sum(1, keepdim=True).clamp(min=1))
    m = (torch.arange(12)<torch.randint(3,13,(8,1))).to(dtype)
    with fm.PlainLoop(fm.ResizeMix(dims=1, lo=.4), Pool(), nn.CrossEntropyLoss()) as loop: b = loop((torch.randn(8,12,5),m), torch.randint(3,(8,)))
    for i,j in enumerate(b.perm.tolist()):
        want,(lo,hi) = m[i].clone(),b.boxes[i,0].tolist()
        want[lo:hi] = shrunk(m[j], [(lo,hi)])
        assert torch.equal(b.xb[1][i], want)

@pytest.mark.parametrize('dtype', (torch.complex64,torch.complex128))
@pytest.mark.parametrize('lam', (.3,torch.tensor([0.,1.,.25])))
def test_complex_targets_are_interpolated(dtype, lam):
    y,y1 = torch.randn(3,4, dtype=dtype),torch.randn(3,4, dtype=dtype)
    got,want = fm.mix_targets(y, y1, lam),torch.stack([l*a + (1-l)*c for l,a,c in zip(torch.as_tensor(lam).expand(3).tolist(), y, y1)])
    assert got.dtype==dtype
    torch.testing.assert_close(got, want)
    assert torch.equal(fm.mix_targets(y, y1*torch.nan, 1.), y)

@pytest.mark.parametrize('loss', (nn.L1Loss(),lambda p,y: (p-y).abs().pow(2).mean()))
def test_complex_inputs_and_targets_train(loss):
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(4))
        def forward(self, x): return self.w*x
    x = torch.randn(8,2,4, dtype=torch.complex64)
    assert len(watched(x, x.clone(), fm.MixUp(4., per_sample=False), Gain(), loss)[1])==1
    with fm.PlainLoop(fm.MixUp(4., per_sample=False), Gain(), loss) as loop:
        b = loop(x, x.clone())
        got = b.loss(b.predict())
    p,lam = b.xb[0],b.lam.item()
    if isinstance(loss, nn.L1Loss): assert got.item()==pytest.approx(0, abs=1e-6)
    else: assert got.item()==pytest.approx((lam*loss(p, x) + (1-lam)*loss(p, x[b.perm])).item(), abs=1e-6)

# Unlike inputs under a mixer that pastes

class Several(nn.Module):
    "A prediction from an image, numbers, a category and tokens"
    def __init__(self, n_image):
        super().__init__()
        self.image,self.numbers,self.cat,self.words = nn.Linear(n_image,3),nn.Linear(4,3),nn.Embedding(5,3),nn.Embedding(7,3)
    def forward(self, image, numbers, cat, words):
        return self.image(image.flatten(1)) + self.numbers(numbers) + self.cat(cat) + self.words(words).mean(1)

@pytest.mark.parametrize('mixer', (fm.CutMix,fm.FMix,fm.ResizeMix))
@pytest.mark.parametrize('order', ('first','last'))
def test_the_image_is_cut_and_all_else_is_mixed_by_its_share(mixer, order):
    x = torch.randn(16,2,6,6),torch.randn(16,4),torch.randint(0,5,(16,)),torch.randint(0,7,(16,5))
    y,several = torch.randint(0,3,(16,)),Several(72)
    class Back(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = several
        def forward(self, *xs): return self.net(*(xs if order=='first' else xs[::-1]))
    learn,_ = watched(x if order=='first' else x[::-1], y, mixer(), Back(), nn.CrossEntropyLoss())
    m = several
    # a second fit at learning rate 0, so that predictions can be computed again
    w = Watch()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(learn, 1, lr=0., cbs=w)
    for loss,(xs,(y0,),given,_,pred,perm,lam,_) in zip(w.losses,w.seen):
        if order=='last': xs,given = xs[::-1],given[::-1]
        image,numbers,cat,words = xs
        for i,j in enumerate(perm.tolist()):
            l = lam[i]
            torch.testing.assert_close(given[1][i], l*numbers[i] + (1-l)*numbers[j])
            if mixer is not fm.ResizeMix:
                kept = given[0][i]==image[i]
                assert torch.equal(given[0][i][~kept], image[j][~kept]) and kept.float().mean().item()==pytest.approx(l.item(), abs=1e-6)
            def rest(k): return m.cat(cat[k]) + m.words(words[k]).mean(0)
            want = m.image(given[0][i].flatten()) + m.numbers(given[1][i]) + l*rest(i) + (1-l)*rest(j)
            torch.testing.assert_close(pred[i], want, atol=1e-4, rtol=1e-4)
        assert torch.equal(given[2], cat) and torch.equal(given[3], words)
        own,other = (F.cross_entropy(pred, t, reduction='none') for t in (y0,y0[perm]))
        assert loss==pytest.approx((lam*own + (1-lam)*other).mean().item(), abs=1e-5)

def blown_up(o, size):
    "Each pixel of `(B,C,h,w)` as a block"
    k,l = size[0]//o.shape[-2],size[1]//o.shape[-1]
    return torch.stack([torch.stack([o[...,i//k,j//l] for j in range(size[1])], -1) for i in range(size[0])], -2)

@pytest.mark.parametrize('mixer', (fm.CutMix,fm.FMix))
@pytest.mark.parametrize('sizes', (((16,8),(8,4)), ((8,4),(16,8)), ((8,8),(16,4)), ((16,16),(8,8),(32,32),(4,4))))
def test_levels_of_a_pyramid_are_cut_in_proportion(mixer, sizes):
    finest = tuple(max(s) for s in zip(*sizes))
    base = torch.randn(16,1,*(min(s) for s in zip(*sizes)))
    xs,y = tuple(blown_up(base, s) for s in sizes),torch.randint(0,3,(16,))
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.nets = nn.ModuleList(nn.Linear(h*w,3) for h,w in sizes)
        def forward(self, *xs): return sum(net(x.flatten(1)) for net,x in zip(self.nets,xs))
    _,seen = watched(xs, y, mixer(alpha=4.), Sum(), nn.CrossEntropyLoss())
    for x0,_,xm,_,_,perm,lam,_ in seen:
        for i,j in enumerate(perm.tolist()):
            assert torch.unique((blown_up(xm[0][i:i+1], finest)-blown_up(xm[-1][i:i+1], finest))).tolist()==[0.]
            for a,b in zip(x0,xm):
                kept = b[i]==a[i]
                assert torch.equal(b[i][~kept], a[j][~kept]) and kept.float().mean().item()==pytest.approx(lam[i].item(), abs=1e-6)

class Deep(nn.Module):
    "Predictions at three resolutions"
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1,3,1)
    def forward(self, x): return [self.net(F.avg_pool2d(x, k)) for k in (1,2,4)]

@pytest.mark.parametrize('dtype', (torch.int64,torch.float32))
@pytest.mark.parametrize('masks,n', ((None,1),((0,1,2),0)))
def test_masks_of_deep_supervision_are_cut_in_proportion(dtype, masks, n):
    fine = torch.randint(0,3,(16,2,2)).repeat_interleave(4,1).repeat_interleave(4,2)
    shape = (lambda t: t[:,None].to(dtype)) if dtype is torch.float32 else (lambda t: t)
    ys = tuple(shape(fine[:,::k,::k]) for k in (1,2,4))
    x,said = fine[:,None].float(),[]
    def loss(preds, *ys): return sum(F.cross_entropy(p, t.view(len(t), *t.shape[-2:]).long()) for p,t in zip(preds,ys))
    learn,seen = watched(x, ys, fm.CutMix(4., masks=masks), Deep(), loss, said=said)
    assert sum('in proportion' in o for o in said)==n
    assert not any('lambda' in o for o in said) # nothing is paired
    for value,((x0,),y0,(xm,),ym,pred,perm,lam,_) in zip(learn.losses,seen):
        for k,t in zip((1,2,4),ym): assert torch.equal(t.view(8, *t.shape[-2:]).float(), xm[:,0,::k,::k])
        assert (xm!=x0).any() and value==pytest.approx(loss(pred, *ym).item(), abs=1e-5)

@pytest.mark.parametrize('other,word', ((torch.randn(8,1,6,6),'multiples or whole fractions'), (torch.randn(8,4,1,1),'multiples or whole fractions')))
def test_inputs_that_are_not_in_proportion_are_refused(other, word):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(64,3)
        def forward(self, a, b): return self.net(a.flatten(1))+b.flatten(1)[:,:3]
    with pytest.raises(ValueError, match=word): watched((torch.randn(8,1,8,8),other), torch.zeros(8).long(), fm.CutMix(), Two(), nn.CrossEntropyLoss())
    watched((torch.randn(8,1,8,8),other), torch.zeros(8).long(), fm.CutMix(inputs=0), Two(), nn.CrossEntropyLoss())

UNLIKE = [ # shapes of two inputs, dims, along which dimensions each is cut (none: interpolated), is it said?
    (((3,8,8),(7,)),None,((2,3),()),0), (((7,),(3,8,8)),None,((),(2,3)),0), (((3,8,8),(4,6)),None,((2,3),()),1), (((24,5),(3,8,8)),1,((1,),()),1),
    (((24,5),(24,)),1,((1,),()),1), (((24,5),(7,)),1,((1,),()),0), (((24,5),(12,5)),1,((1,),(1,)),0), (((6,3,8,8),(3,8,8)),(-2,-1),((3,4),(2,3)),0),
    (((6,3,8,8),(3,4,4)),(-2,-1),((3,4),(2,3)),1), (((1,6,24),(1,240)),-1,((3,),(2,)),1)]

@pytest.mark.parametrize('shapes,dims,along,n', UNLIKE)
@pytest.mark.parametrize('named', (False,True))
def test_each_input_is_cut_along_its_own_dimensions_or_interpolated(shapes, dims, along, n, named):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.nets = nn.ModuleList(nn.Linear(torch.zeros(s).numel(), 3) for s in shapes)
        def forward(self, *xs): return sum(net(x.flatten(1)) for net,x in zip(self.nets,xs))
    xs = tuple(torch.arange(8.).view(8, *[1]*len(s)).expand(8, *s).contiguous() for s in shapes)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        with fm.PlainLoop(fm.CutMix(dims=dims, inputs=(0,1) if named else None), Sum(), nn.CrossEntropyLoss()) as loop: b = loop(xs, torch.arange(8)%3)
    assert sum('inputs=' in str(o.message) for o in said)==(0 if named else n)
    for x,xm,ds in zip(xs,b.xb,along):
        if ds:
            assert ((xm==x) | (xm==x[b.perm])).all()
            assert {d for d in range(1, xm.ndim) if (xm!=xm.select(d, 0).unsqueeze(d)).any()}<={*ds}
            torch.testing.assert_close((xm==x).flatten(1).float().mean(1), b.lam)
        else:
            lam = b.lam.view(-1, *[1]*(x.ndim-1))
            torch.testing.assert_close(xm, lam*x + (1-lam)*x[b.perm])

def test_sizes_without_a_common_grid_are_refused():
    y = torch.zeros(8,4,4).long(),torch.zeros(8,6,6).long()
    with pytest.raises(ValueError, match='multiples of the smallest'):
        watched(torch.randn(8,1,12,12), y, fm.CutMix(masks=(0,1)), nn.Conv2d(1,3,1), lambda p,a,b: p.sum())

# Who meets whom

def other_group(groups, generator=None):
    "As in the recipes: partners of another group, if none has more than half of the samples"
    order = torch.randperm(len(groups), generator=generator)
    order = order[groups[order].argsort(stable=True)]
    return torch.empty_like(order).scatter_(0, order, order.roll(-groups.bincount().max().item()))

@pytest.mark.parametrize('mixer', (fm.MixUp,fm.CutMix,fm.FMix))
@pytest.mark.parametrize('which,same', (('class',True),('domain',True),('class',False),('domain',False)))
def test_partners_of_the_same_or_another_group(mixer, which, same):
    "The second target names the domain; the loss reads the class alone"
    x,y,d = torch.randn(32,1,6,6),torch.arange(32)%2,torch.arange(32)//2%2
    k = ('class','domain').index(which)
    pair = (lambda yb, g: fm.perm_within(yb[k], g)) if same else (lambda yb, g: other_group(yb[k], g))
    learn,seen = watched(x, (y,d), mixer(4., pair=pair, per_sample=False), nn.Sequential(nn.Flatten(), nn.Linear(36,4)),
        lambda p, y, d: F.cross_entropy(p, y), n=4)
    for loss,((x0,),ys,(xm,),_,pred,perm,lam,_) in zip(learn.losses,seen):
        assert sorted(perm.tolist())==list(range(8))
        for i,j in enumerate(perm.tolist()):
            assert (ys[k][i]==ys[k][j]).item() is same
            assert not same or i!=j or (ys[k]==ys[k][i]).sum()==1
        want = lam[0]*F.cross_entropy(pred, ys[0]) + (1-lam[0])*F.cross_entropy(pred, ys[0][perm])
        assert loss==pytest.approx(want.item(), abs=1e-5)
    assert len({tuple(o[5].tolist()) for o in seen})>8 # drawn anew

@pytest.mark.parametrize('pair', (lambda yb,g: torch.zeros(8).long(), lambda yb,g: torch.arange(7), lambda yb,g: torch.rand(8)))
def test_what_is_no_pairing_is_refused(pair):
    with pytest.raises(ValueError, match='each index below 8 once'):
        watched(torch.randn(8,4), torch.zeros(8).long(), fm.MixUp(pair=pair), nn.Linear(4,3), nn.CrossEntropyLoss())

# No mix, as one of several

def lams(mixer, n_batches=400, bs=8):
    "Lambda of all samples of many batches `(n_batches, bs)`, 1 where a batch stayed plain"
    with fm.PlainLoop(mixer, nn.Linear(4,3), nn.CrossEntropyLoss()) as loop:
        x,y = torch.randn(bs,4),torch.arange(bs)%3
        bs = [loop(x, y) for _ in range(n_batches)]
        for b in bs: assert b.lam is not None or torch.equal(b.xb[0], x)
        return torch.stack([torch.ones(len(x)) if b.lam is None else b.lam.expand(len(x)) for b in bs])

def binomial(n, p): return [torch.distributions.Binomial(n, torch.tensor(p)).log_prob(torch.tensor(float(k))).exp().item() for k in range(n+1)]

def check_share(hits, n, p):
    "Are `hits` of `n` what a share `p` gives? Wrong once in 100,000 runs"
    assert abs(hits-n*p)<=4.5*(n*p*(1-p))**.5+1, f'{hits} of {n}, expected {n*p:.0f}'

@pytest.mark.parametrize('weights,p', ((None,.5),((3,1),.25),((1,9),.9),((1,0),0.)))
def test_a_share_of_batches_stays_plain(weights, p):
    plain = (lams(fm.MixChoice(fm.MixUp(4.), None, weights=weights))==1).float().mean(1)
    assert set(plain.tolist())<={0.,1.} # all of a batch or none
    check_share(plain.sum().item(), 400, p)

@pytest.mark.parametrize('mixers,weights,p', (((fm.MixUp(4.),None),(3,1),.25), ((None,fm.MixUp(4.)),None,.5), ((fm.MixUp(4.),fm.MixUp(8.),None),(1,1,2),.5)))
def test_a_share_of_samples_stays_plain(mixers, weights, p):
    "Each sample by itself: the number of plain ones in a batch is binomial, too"
    plain = (lams(fm.MixChoice(*mixers, weights=weights, per_sample=True))==1).sum(1)
    check_share(plain.sum().item(), 3200, p)
    for k,share in enumerate(binomial(8, p)): check_share((plain==k).sum().item(), 400, share)

def test_plain_samples_keep_their_image_and_label():
    x,y = torch.randn(32,1,6,6),torch.randint(0,3,(32,))
    _,seen = watched(x, y, fm.MixChoice(fm.CutMix(length=.5), None, per_sample=True), nn.Sequential(nn.Flatten(), nn.Linear(36,3)),
        nn.CrossEntropyLoss(), n=2)
    same = torch.cat([(a[0]==b[0]).flatten(1).all(1) for a,_,b,*_ in seen])
    assert torch.equal(same, torch.cat([o[6]==1 for o in seen])) and 0<same.float().mean()<1

class MaskedMean(nn.Module):
    "The mean of the steps of features `(B,T,F)` that a mask `(B,T)` shows"
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(5,3)
    def forward(self, x, m): return self.l((x.tanh()*m.float()[...,None]).sum(1)/m.float().sum(1, keepdim=True).clamp(min=1))

EACH = {'cut or plain':lambda: (fm.CutMix(dims=1),None), 'regions or interpolated':lambda: (fm.FMix(dims=1),fm.MixUp(4.)),
    'all':lambda: (fm.MixUp(4.),fm.CutMix(dims=1),fm.FMix(dims=1),None)}

def is_own(b, i, T):
    "Which steps of sample `i` are its own, by what its mixer drew; None if the mixer does not paste"
    o = b.each[b.pick[i]]
    if o.boxes is not None: return [not o.boxes[i,0,0]<=t<o.boxes[i,0,1] for t in range(T)]
    if hasattr(o, 'mask'): return [bool(o.mask[i,0,t]) for t in range(T)]

@pytest.mark.parametrize('name', EACH)
@pytest.mark.parametrize('dtype', (torch.float32,torch.bool))
def test_a_padding_mask_goes_with_the_steps_of_its_sample(name, dtype):
    m = torch.arange(12)<torch.randint(3,13,(32,1))
    x = torch.randn(32,12,5)
    with fm.PlainLoop(fm.MixChoice(*EACH[name](), per_sample=True), MaskedMean(), nn.CrossEntropyLoss()) as loop: b = loop((x,m.to(dtype)), torch.arange(32)%3)
    assert b.xb[1].dtype==dtype
    for i,j in enumerate(b.perm.tolist()):
        own = is_own(b, i, 12)
        if own is None: want = m[i] if b.lam[i]==1 else m[i]|m[j]
        else: want = torch.stack([m[i if o else j,t] for t,o in enumerate(own)])
        assert torch.equal(b.xb[1][i].bool(), want)
        if own is not None: assert torch.equal(b.xb[0][i], torch.stack([x[i if o else j,t] for t,o in enumerate(own)]))

def dice(p, y):
    p = p.softmax(1)[:,1]
    return 1-2*(p*y).sum()/(p.sum()+y.sum()+1)

@pytest.mark.parametrize('mixers,weights', (((fm.CutMix,fm.FMix,None),None), ((None,fm.ResizeMix),None), ((fm.CutMix,fm.MixUp),(1,0))))
def test_masks_that_are_only_pasted_need_no_lambda(mixers, weights):
    x,y = torch.arange(16.).view(16,1,1,1).expand(16,1,8,8).contiguous(),torch.arange(16).view(16,1,1).expand(16,8,8).contiguous()
    mixer,net,said = fm.MixChoice(*[m and m() for m in mixers], weights=weights, per_sample=True),nn.Conv2d(1,2,1),[]
    learn,seen = watched(x, y, mixer, net, dice, said=said)
    assert not any('lambda' in o for o in said)
    for value,((x0,),_,(xm,),(ym,),pred,_,_,_) in zip(learn.losses,seen):
        assert torch.equal(xm[:,0].round().long(), ym) and (xm!=x0).any()
        assert value==pytest.approx(dice(pred, ym).item(), abs=1e-6)

def test_masks_that_are_sometimes_interpolated_need_a_known_loss():
    x,y = torch.randn(16,1,8,8),torch.randint(0,2,(16,8,8))
    with pytest.raises(ValueError, match='weighted by sample'): watched(x, y, fm.MixChoice(fm.CutMix(), fm.MixUp(), per_sample=True), nn.Conv2d(1,2,1), dice)

def test_a_target_that_was_written_to_before_it_is_mixed_has_not_changed_since():
    x,y = torch.randn(16,1,8,8),torch.arange(16).view(16,1,1).repeat(1,8,8)
    class Write(Callback):
        order = -10
        def before_batch(self): self.y.add_(0)
    learn,seen = watched(x, y, fm.MixChoice(fm.CutMix(), fm.MixUp(4.), per_sample=True), nn.Conv2d(1,16,1), nn.CrossEntropyLoss(), Write())
    for value,(_,(y0,),_,(ym,),pred,perm,lam,_) in zip(learn.losses,seen):
        y1 = torch.stack([ym[i] if not torch.equal(ym[i], y0[i]) else y0[j] for i,j in enumerate(perm.tolist())])
        own,other = (F.cross_entropy(pred, t, reduction='none').mean((1,2)) for t in (ym,y1))
        assert value==pytest.approx((lam*own + (1-lam)*other).mean().item(), abs=1e-5)

# What is shown

def shown(x, y, mixer, **kw):
    import matplotlib.pyplot as plt
    dls = loaders(x, y)
    dls.n_inp = 1 if isinstance(x, torch.Tensor) else len(x)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        axs = fm.show_mixed_batch(dls, mixer, n=2, **kw)
    plt.gcf().canvas.draw()
    plt.close('all')
    return axs

@pytest.mark.parametrize('shape,dims,n', (((6,3,8,8),(-2,-1),5), ((3,6,8,8),(-2,-1),5), ((1,3,8,8),(3,4),3), ((2,3,8,8),(3,4),2)))
def test_a_clip_is_a_strip_of_frames_with_a_box_in_each(shape, dims, n):
    x = torch.rand(8, *shape)
    if shape[:2]==(1,3): x,n = torch.rand(8,3,1,8,8),3 # three frames in grey
    for ax in shown(x, torch.arange(8), fm.CutMix(length=.5, dims=dims)):
        assert ax.images[0].get_array().shape[:2]==(8, 8*n) and len(ax.patches)==n
        first = ax.patches[0].get_bbox().extents
        for k,o in enumerate(ax.patches): assert o.get_bbox().extents.tolist()==[first[0]+8*k,first[1],first[2]+8*k,first[3]]

@pytest.mark.parametrize('dims,whole', ((-1,1), (-2,0)))
def test_a_spectrogram_shows_a_stretch_of_time_or_a_band(dims, whole):
    for ax in shown(torch.rand(8,1,16,24), torch.arange(8), fm.CutMix(length=.5, dims=dims)):
        x0,y0,x1,y1 = ax.patches[0].get_bbox().extents
        assert (y0,y1)==(-.5,15.5) if whole else (x0,x1)==(-.5,23.5)

@pytest.mark.parametrize('dtype', (torch.bfloat16,torch.float16))
@pytest.mark.parametrize('mixer', (fm.MixUp(),fm.CutMix(),fm.FMix()))
@pytest.mark.parametrize('shape', ((3,8,8),(1,20)))
def test_half_precision_is_shown(dtype, mixer, shape): assert len(shown(torch.rand(8, *shape).to(dtype), torch.arange(8), mixer))==2

def test_float_masks_are_pasted_in_the_picture():
    x = torch.rand(8,1,8,8)
    for ax in shown(x, x.clone(), fm.CutMix(length=.5)): # the mask equals its image
        image,mask = (torch.as_tensor(o.get_array()).view(8,8).float() for o in ax.images[:2])
        torch.testing.assert_close(image, mask)

def test_labels_of_steps_are_drawn_and_not_written():
    y = torch.arange(24).expand(8,24)//6
    for ax in shown(torch.rand(8,1,24), y, fm.CutMix(masks=0)):
        assert torch.as_tensor(ax.child_axes[0].images[0].get_array())[0].tolist()==y[0].tolist()
        assert ';' not in ax.get_title()

def test_numbers_come_first_in_a_table():
    import pandas as pd
    from fastai.tabular.all import Categorify, TabularDataLoaders
    df = pd.DataFrame({f'c{i}':list('abcd'*4) for i in range(14)} | {f'x{i}':torch.randn(16).tolist() for i in range(3)} | dict(y=list('ab'*8)))
    dls = TabularDataLoaders.from_df(df, procs=[Categorify], cat_names=[f'c{i}' for i in range(14)], cont_names=['x0','x1','x2'], y_names='y', bs=8)
    ax = fm.show_mixed_batch(dls, fm.MixUp(), n=1)[0]
    cells = ax.tables[0].get_celld()
    assert [cells[i,0].get_text().get_text() for i in (1,2,3)]==['x0','x1','x2'] and all(cells[i,3].get_text().get_text() for i in (1,2,3))

def test_a_loader_that_can_only_draw_is_shown():
    class Foreign:
        n_inp,dataset = 1,[]
        def __init__(self, dl): self.dl = dl
        def __iter__(self): return iter(self.dl)
        def __len__(self): return len(self.dl)
        def show_batch(self, b=None, max_n=9): raise RuntimeError('it draws by itself')
    dl = Foreign(loaders(torch.rand(8,3,8,8), torch.arange(8)).train)
    assert len(fm.show_mixed_batch(DataLoaders(dl, dl), fm.CutMix(), n=2))==2

@pytest.mark.parametrize('p', (.25,.8))
def test_share_of_mixed_batches(p):
    "`p` is the share of batches that are mixed, within what 600 draws allow in one run of a million"
    mixed,n = [],600
    class Note(Callback):
        run_valid = False
        def before_backward(self): mixed.append(self.learn.mixer.lam is not None)
    x,y = torch.randn(2*n, 4),torch.arange(2*n)%3
    dls = DataLoaders.from_dsets([*zip(x,y)], [*zip(x[:2],y[:2])], bs=2, device='cpu', num_workers=0)
    learn = Learner(dls, nn.Linear(4, 3), loss_func=nn.CrossEntropyLoss(), cbs=[Note()]).mixup(p=p, generator=torch.Generator().manual_seed(0))
    with learn.no_bar(),learn.no_logging(): learn.fit(1, 0.)
    assert len(mixed)==n and abs(sum(mixed)-n*p)<4.9*(n*p*(1-p))**.5

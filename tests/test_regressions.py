"Faults of other libraries for mixing, a test each, which fails once its fault is there"
import math, pytest, torch, torch.nn.functional as F
from scipy import stats
from torch import nn
from fastai.basics import Callback, DataLoaders, Learner, TrainEvalCallback, set_seed
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, MSELossFlat
from fastmix.callback import CutMix, MixUp
from fastmix.draw import box_lam, draw_boxes, draw_lam, draw_perm, place_boxes
from fastmix.chance import rank_generator
from fastmix.loss import MixUpLoss
from fastmix.mix import cutmix_batch, mix_targets, mixup_batch

torch.set_num_threads(1)
both = pytest.mark.parametrize('cls', (MixUp,CutMix))

def labelled(n, size=(4,6), dtype=torch.float32):
    "Images whose every pixel is their label"
    y = torch.arange(n)
    return y.to(dtype).view(n, 1, *[1]*len(size)).expand(n, 1, *size).contiguous(),y

def net(n_in, n_out=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, n_out))

class Seen(Callback):
    "Keeps what the model was given, said and lost, in training and out of it"
    order,run_valid = 50,True
    def __init__(self): self.train,self.valid = [],[]
    def after_loss(self):
        row = dict(x=self.x, pred=self.pred.detach(), loss=self.loss.detach(), yb=self.yb, asked=self.learn.mixer.loss(self.pred).detach())
        (self.train if self.training else self.valid).append(row | {k: getattr(self.learn.mixer, k) for k in ('perm','lam')})

def learner(mixer, train, valid=(), loss_func=None, model=None):
    "A Learner on ready batches, the very same objects in each epoch"
    dls,model = DataLoaders(train, list(valid), device='cpu'),model or net(train[0][0][0].numel())
    cbs,loss_func = [TrainEvalCallback, mixer, Seen],loss_func or nn.CrossEntropyLoss()
    return Learner(dls, model, lr=0., loss_func=loss_func, cbs=cbs, default_cbs=False)

def fit(learn, n=1):
    learn.fit(n)
    return learn.seen

def by_sample(row, x, y, loss_func=F.cross_entropy):
    "Mean of the mixed loss, sample by sample"
    rows = zip(row['pred'], row['lam'].expand(len(x)), y, y[row['perm']])
    return torch.stack([l*loss_func(p, a) + (1-l)*loss_func(p, b) for p,l,a,b in rows]).mean()

@both
def test_three_are_no_mixed_triple(cls):
    "A batch of three, or a target of three entries, is taken for `(target, shuffled target, lambda)`"
    for y in (torch.tensor([0,1,0]), torch.tensor([[0.,1,0],[1,0,0],[0,0,1]]), torch.rand(3, 3)):
        pred = torch.randn(3, 3)
        assert torch.equal(MixUpLoss(F.cross_entropy)(pred, y), F.cross_entropy(pred, y))
    def _three(pred, a, b, c): return (pred[:,0]*a + b - c).pow(2).mean()
    pred,yb = torch.randn(3, 3),torch.rand(3, 3).unbind()
    assert torch.equal(MixUpLoss(_three)(pred, *yb), _three(pred, *yb))
    x,y = labelled(3)
    seen = fit(learner(cls(1.), [(x,y)], [(x,y)], loss_func=MixUpLoss(nn.CrossEntropyLoss())))
    assert torch.allclose(seen.train[0]['loss'], by_sample(seen.train[0], x, y))
    assert torch.equal(seen.valid[0]['loss'], F.cross_entropy(seen.valid[0]['pred'], y))

@both
def test_p_once(cls):
    "`p` is applied twice: to the batch and again to its samples, so that `p*p` of them are mixed"
    n,p = 1000,0.5
    x,y = labelled(4)
    seen = fit(learner(cls(1., p=p), [(x,y)]*n))
    mixed = [row for row in seen.train if row['lam'] is not None]
    assert stats.binomtest(len(mixed), n, p).pvalue>1e-3
    for row in mixed: assert len(row['lam'])==4 and (row['perm']!=y).all()
    assert sum((row['lam']<1).sum() for row in mixed) > 4*len(mixed)*(.99 if cls is MixUp else .8)
    assert all(row['x'] is x or torch.equal(row['x'], x) for row in seen.train if row['lam'] is None)

def test_boxes_of_a_batch_differ():
    "All boxes of a batch lie at the same place, or at the same relative place whatever their size"
    n,x = 400,torch.zeros(400, 1, 32, 48)
    for kw in (dict(length=.25), dict(minmax=(.2,.5)), dict(lam=.8), dict(lam=torch.linspace(.6, .9, n))):
        lo,hi = cutmix_batch(x, generator=torch.Generator().manual_seed(0), **kw)[3].unbind(-1)
        rel = (lo+hi)/torch.tensor([32,48.])
        assert len(torch.unique(lo, dim=0))>n//2
        for o in rel.T: assert len(o.unique())>15 and o.std()>.15
        assert abs(torch.corrcoef(rel.T)[0,1])<.2 and abs(torch.corrcoef(torch.stack([rel[1:,0],rel[:-1,0]]))[0,1])<.2

@pytest.mark.parametrize('where', ('centre','uniform','inside'))
def test_border_is_reached(where):
    "Boxes are never drawn at the last position, so that the border is covered too seldom"
    for s,side in ((8,1),(8,3),(8,4),(5,4),(5,5)):
        boxes = place_boxes((s,), [torch.full((4000,), float(side))], where, torch.Generator().manual_seed(0))[:,0]
        first,last = (boxes[:,0]==0).sum().item(),(boxes[:,1]==s).sum().item()
        assert first>0 and last>0 and (side==s or stats.binomtest(first, first+last).pvalue>1e-3)
        covered = torch.stack([((boxes[:,0]<=k)&(k<boxes[:,1])).sum() for k in range(s)]).float()
        assert (covered-covered.flip(0)).abs().max() < 5*math.sqrt(4000)

def test_lambda_of_the_clipped_box():
    "Labels are weighted with the lambda that was drawn, though the box was clipped at the border (or rounded to pixels)"
    x,y = labelled(400, (7,9))
    for kw in (dict(lam=.4), dict(length=.6), dict(minmax=(.3,.9)), dict(alpha=1.), dict(lam=.4, uniform=True)):
        xm,y1,lam,boxes = cutmix_batch(x, y, generator=torch.Generator().manual_seed(0), **kw)
        pasted = (xm!=x).float().mean((1,2,3))
        assert torch.allclose(lam, 1-pasted, atol=1e-6) and torch.equal(lam, box_lam(boxes, (7,9)))
    assert len(cutmix_batch(x, y, lam=.4)[2].unique())>5
    x,y = labelled(8, (7,9))
    row = fit(learner(CutMix(), [(x,y)])).train[0]
    assert torch.allclose(row['lam'], (row['x']==x).float().mean((1,2,3)), atol=1e-6)

def test_lambda_is_the_own_share():
    "Lambda is inverted: it weighs the partner's label though it is the sample's own share, or the other way round"
    x,y = labelled(6)
    for f in (mixup_batch, cutmix_batch):
        xm,y1,lam = f(x, y, 1., generator=torch.Generator().manual_seed(0))[:3]
        assert torch.allclose(xm.mean((1,2,3)), lam*y + (1-lam)*y1, atol=1e-5)
    assert torch.equal(mixup_batch(x, lam=1.)[0], x) and torch.equal(cutmix_batch(x, lam=1.)[0], x)
    assert (draw_lam(100, 1., dedup=True)>=.5).all() and torch.equal(draw_lam(3, 0), torch.ones(3))
    pred,y,y1 = torch.tensor([[9.,0]]),torch.tensor([0]),torch.tensor([1])
    assert MixUpLoss(F.cross_entropy)(pred, y, yb1=y1, lam=.9) < 1 < 8 < MixUpLoss(F.cross_entropy)(pred, y, yb1=y1, lam=.1)
    assert torch.allclose(mix_targets(y, y1, .9, 2), torch.tensor([[.9,.1]]))

@both
def test_lambda_is_the_own_share_in_training(cls):
    "Lambda is inverted between the input, the target and the loss"
    x,y = labelled(8)
    row = fit(learner(cls(1.), [(x,y)])).train[0]
    assert torch.allclose(row['x'].mean((1,2,3)), row['lam']*y + (1-row['lam'])*y[row['perm']], atol=1e-5)
    assert torch.allclose(row['loss'], by_sample(row, x, y), atol=1e-5)
    row = fit(learner(cls(1.), [(x,y.float())], loss_func=MSELossFlat(), model=net(24, 1))).train[0]
    assert torch.allclose(row['x'].mean((1,2,3)), row['yb'][0], atol=1e-5)

@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_labels_keep_their_precision(dtype):
    "Labels or lambda are cast to the half precision of the image: 257 becomes 256 in bfloat16, 2049 becomes 2048 in float16"
    y = torch.tensor([257,2049,70001,3])
    x = torch.rand(4, 1, 6, 7).to(dtype)
    for f in (mixup_batch, cutmix_batch):
        xm,y1,lam = f(x, y, 1., perm=[1,2,3,0], generator=torch.Generator().manual_seed(0))[:3]
        assert xm.dtype==dtype and y1.dtype==torch.int64 and y1.tolist()==[2049,70001,3,257]
        assert lam.dtype==torch.float32 and not torch.equal(lam, lam.to(dtype).float())
        assert f(x, y.double()+.125, perm=[1,2,3,0])[1].tolist()==[2049.125,70001.125,3.125,257.125]
    dense = mix_targets(torch.tensor([0,1]), torch.tensor([1,0]), torch.tensor([.7,.9]), 2)
    assert dense.dtype==torch.float32 and torch.allclose(dense, torch.tensor([[.7,.3],[.1,.9]]), atol=1e-6)
    pred,y,y1,lam = torch.randn(4, 3).to(dtype),torch.tensor([0,1,2,0]),torch.tensor([1,2,0,1]),torch.tensor([.7,.9,.61,.57])
    loss,want = (MixUpLoss(nn.CrossEntropyLoss())(o, y, yb1=y1, lam=lam) for o in (pred, pred.double()))
    assert loss.dtype==torch.float32 and torch.allclose(loss.double(), want, atol=1e-6)

@both
@pytest.mark.parametrize('dtype', (torch.float16, torch.bfloat16))
def test_labels_keep_their_precision_in_training(cls, dtype):
    "The same in a Learner: neither the kept labels nor the interpolated ones are cast to the image's dtype"
    x,y = torch.rand(4, 1, 6, 7).to(dtype),torch.tensor([257,2049,4000,3])
    class Float(nn.Linear):
        def forward(self, x): return super().forward(x.flatten(1).float())
    row = fit(learner(cls(1.), [(x,y)], model=Float(42, 4001))).train[0]
    assert row['x'].dtype==dtype and torch.equal(row['yb'][0], y)
    assert torch.allclose(row['loss'], by_sample(row, x, y), atol=1e-4)
    row = fit(learner(cls(1.), [(x,y.float())], model=Float(42, 1), loss_func=MSELossFlat())).train[0]
    assert row['yb'][0].dtype==torch.float32
    want = row['lam']*y + (1-row['lam'])*y[row['perm']]
    assert torch.allclose(row['yb'][0], want, rtol=1e-6)

@both
@pytest.mark.parametrize('n', (1,2,3,5,7))
def test_odd_batches(cls, n):
    "An even number of samples is required, or the last one is left out"
    x,y = labelled(n)
    for f in (mixup_batch, cutmix_batch):
        xm,y1,lam = f(x, y, lam=.5, generator=torch.Generator().manual_seed(0))[:3]
        assert len(xm)==len(y1)==n and sorted(y1.tolist())==list(range(n)) and (n==1 or (y1!=y).all())
    row = fit(learner(cls(1.), [(x,y)])).train[0]
    assert len(row['x'])==n and torch.allclose(row['x'].mean((1,2,3)), row['lam']*y + (1-row['lam'])*y[row['perm']], atol=1e-5)

@both
@pytest.mark.parametrize('stack_y', (None,True,False))
def test_smoothed_once(cls, stack_y):
    "Labels are smoothed twice: by the mix and again by the loss"
    (x,y),eps = labelled(8),0.2
    losses = nn.CrossEntropyLoss(label_smoothing=eps),CrossEntropyLossFlat(label_smoothing=eps)
    if stack_y is not False: losses += LabelSmoothingCrossEntropy(eps),LabelSmoothingCrossEntropyFlat(eps=eps)
    for loss_func in losses:
        row = fit(learner(cls(1., stack_y=stack_y), [(x,y)], loss_func=loss_func)).train[0]
        hot,l = F.one_hot(y, 10),row['lam'][:,None]
        target = (1-eps)*(l*hot + (1-l)*hot[row['perm']]) + eps/10
        assert torch.allclose(row['loss'], -(target*row['pred'].log_softmax(1)).sum(1).mean(), atol=1e-5)

@pytest.mark.parametrize('bad', (math.nan, math.inf, -math.inf))
@pytest.mark.parametrize('dtype', (torch.float32, torch.float16, torch.bfloat16))
def test_no_leak_through_a_zero_weight(bad, dtype):
    "A NaN or an infinity of the partner leaks through a weight of zero (`0*nan` is NaN), where nothing of the partner is pasted"
    x = torch.ones(3, 2, 4, 5).to(dtype)
    x[1] = bad
    boxes = torch.tensor([[[1,3],[0,2]], [[0,4],[0,5]], [[2,2],[1,4]]])
    for o in (x, x.clone().requires_grad_()):
        xm = cutmix_batch(o, perm=[1,2,1], boxes=boxes)[0].detach()
        assert (~xm.isfinite()).sum((1,2,3)).tolist()==[8,0,0]
    o = x.float().requires_grad_()
    cutmix_batch(o, perm=[1,2,1], boxes=boxes)[0][0,:,3:].sum().backward()
    assert o.grad[1:].abs().sum()==0 and o.grad[0].sum()==10
    pred = torch.tensor([[0.,-math.inf,1],[2,0,0]])
    for f in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction='sum'), nn.MultiMarginLoss(), F.cross_entropy):
        assert MixUpLoss(f)(pred, torch.tensor([0,1]), yb1=torch.tensor([1,2]), lam=torch.tensor([1.,.5])).isfinite()

@both
@pytest.mark.parametrize('kind', ('classes','numbers','masks','one-hot','both','tuple'))
def test_cached_batch_is_left_alone(cls, kind):
    "The batch that the loader keeps is mixed in place, so that every epoch starts from what the last one left"
    x = torch.randn(5, 1, 4, 6)
    y = dict(classes=torch.arange(5), masks=torch.randint(10, (5,4,6)), numbers=torch.randn(5)).get(kind, torch.rand(5, 10))
    loss_func = dict(classes=nn.CrossEntropyLoss(), masks=nn.CrossEntropyLoss(), numbers=MSELossFlat()).get(kind, nn.BCEWithLogitsLoss())
    batch = (dict(a=[x]) if kind=='tuple' else x),y
    model = nn.Conv2d(1, 10, 1) if kind=='masks' else net(24, 1 if kind=='numbers' else 10)
    if kind=='tuple':
        class Inner(nn.Module):
            def __init__(self):
                super().__init__()
                self.m = net(24)
            def forward(self, x): return self.m(x['a'][0])
        model = Inner()
    x0,y0 = x.clone(),y.clone()
    learn = learner(cls(1., stack_y=True if kind=='both' else None), [batch], [batch], loss_func, model)
    seen = fit(learn, 3)
    assert len(seen.train)==3 and torch.equal(x, x0) and torch.equal(y, y0) and learn.dls.train[0] is batch
    assert torch.equal(seen.valid[-1]['pred'], seen.valid[0]['pred'])

@both
def test_partners_of_all_rows(cls):
    "The label of the first partner is used for all rows, or partners of inputs and labels are shuffled apart"
    x,y = labelled(16)
    for f in (mixup_batch, cutmix_batch):
        xm,y1,lam = f(x, y, lam=.5, generator=torch.Generator().manual_seed(0))[:3]
        assert len(y1.unique())==16
        for o,a,b in zip(xm, y, y1): assert set(o.unique().tolist()) <= ({(a+b).item()/2} if f is mixup_batch else {a.item(),b.item()})
    row = fit(learner(cls(1.), [(x,y)], model=net(24, 16))).train[0]
    assert len(row['perm'].unique())==16
    assert torch.allclose(row['loss'], by_sample(row, x, y), atol=1e-5)

class ValidateInside(Callback):
    "A look at the validation set in the middle of training"
    run_valid = False
    def after_step(self):
        with torch.no_grad():
            self.learn.training = False
            self.learn('before_validate')
            x,y = self.dls.valid[0]
            self.learn.inside = self.model(x)
            self.learn.training = True
            self.model.train()

@both
def test_validation_is_plain(cls):
    "Validation batches are mixed too, or scored with the mixed loss"
    x,y = labelled(8)
    learn = learner(cls(1.), [(x,y)], [(x,y)])
    learn.add_cb(ValidateInside())
    seen,want = fit(learn, 2),F.cross_entropy(learn.model(x), y)
    assert len(seen.valid)==2
    for row in seen.valid:
        assert row['x'] is x and row['yb'][0] is y
        assert torch.equal(row['loss'], want) and torch.equal(row['asked'], want)
    assert torch.equal(learn.inside, learn.model(x))
    assert torch.equal(learn.get_preds(dl=[(x,y)], act=lambda o: o, reorder=False)[0], learn.model(x))

def test_ranks_draw_for_themselves(monkeypatch):
    "Two ranks that are seeded alike draw the same pairings, lambdas and boxes, and see half of the mixes"
    def _draws(rank, size, seed=0, generator=None):
        monkeypatch.setenv('RANK', str(rank))
        monkeypatch.setenv('WORLD_SIZE', str(size))
        set_seed(seed)
        g = rank_generator(generator, 'cpu')
        return draw_perm(50, generator=g),draw_lam(50, 1., generator=g),draw_boxes((50,50), torch.full((50,), .5), generator=g)
    def _alike(a, b): return [torch.equal(*o) for o in zip(a, b)]
    for gens in ((None,)*3, [torch.Generator().manual_seed(5) for _ in range(3)]):
        first,other,again = (_draws(r, 2, generator=g) for r,g in zip((0,1,0), gens))
        assert _alike(first, other)==[False]*3 and _alike(first, again)==[True]*3
    assert _alike(_draws(0, 2), _draws(0, 2, 1))==[False]*3
    one,two = (_draws(0, 2, seed, torch.Generator().manual_seed(5)) for seed in (1,2))
    assert _alike(one, two)==[True]*3 # a generator is all that counts
    assert max(rank_generator(torch.Generator().manual_seed(i), 'cpu').initial_seed() for i in range(20))>2**40 # no two runs get one seed
    for size in (0,1): assert _alike(_draws(0, size), (set_seed(0), _draws(0, size))[1])==[True]*3

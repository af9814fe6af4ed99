"Losses, inputs and callbacks that do not agree with a mixed batch: what is trained on is right, or it is said once; what is right is not warned of"
import itertools, numpy as np, pytest, random, torch, torch.nn.functional as F, warnings
from torch import nn
from torch.utils.data import DataLoader
from fastai.basics import Callback, DataLoaders, Learner
import fastmix.all as fm
from oracle import cut, lerp, train

torch.set_num_threads(1)
torch.manual_seed(0)
X,Y = torch.randn(64,6),torch.randint(0, 3, (64,))
BATCHES = cut(8, X, Y)
ce = F.cross_entropy

def says(word, *args, **kw): return sum(word in o for o in train(*args, **kw)[2])
def linear(n_in=6, n_out=3):
    torch.manual_seed(0)
    return nn.Linear(n_in, n_out)
def mixup(**kw): return fm.MixUp(8., per_sample=False, **kw)


# What a loss does with a whole batch

def halves(p, y): return ce(p[:4], y[:4])+.1*ce(p[4:], y[4:])
def views(p, y): return ce(p, y)+F.mse_loss(p[:4], p[4:])
def sums(p, y): return ce(p[:4], y[:4], reduction='sum')

@pytest.mark.parametrize('loss', [halves,views,sums], ids=lambda f: f.__name__)
@pytest.mark.parametrize('mixer', [fm.MixUp,fm.ManifoldMixUp,fm.OutputMixUp], ids=lambda o: o.__name__)
def test_a_loss_that_goes_by_places_in_the_batch_is_announced(loss, mixer):
    assert says('changes when samples change places', linear(), BATCHES, mixer(8., per_sample=False), loss=loss)==1 # by the trial or by the whole batch

class Weighted(nn.Module):
    "Weighs samples by what somebody sets"
    def __init__(self):
        super().__init__()
        self.w = None
    def forward(self, p, y):
        l = ce(p, y, reduction='none')
        return (l if self.w is None or len(self.w)!=len(l) else l*self.w).mean()

class SetsAfterPred(Callback):
    run_valid = False
    def after_pred(self): self.learn.loss_func.w = X[:8,0].abs()
    def after_loss(self): self.learn.loss_func.w = None

class SetsLater(Callback):
    run_valid = False
    def before_batch(self): self.learn.loss_func.w = X[:8,0].abs() if self.epoch else None

@pytest.mark.parametrize('cb,n', [(SetsAfterPred,1),(SetsLater,0)], ids=['between prediction and loss','from the second epoch on'])
def test_weights_that_a_loss_is_given_late_are_announced(cb, n):
    dls = DataLoaders.from_dsets([*zip(X,Y)], [*zip(X[:8],Y[:8])], bs=8, num_workers=0, device='cpu')
    learn = Learner(dls, linear(), loss_func=Weighted(), cbs=[mixup(),cb()])
    for epochs,want in ((1,n),(2,1)):
        with warnings.catch_warnings(record=True) as said, learn.no_bar(), learn.no_logging():
            warnings.simplefilter('always')
            learn.fit(epochs, 1e-2)
        assert sum('changes when samples change places' in str(o.message) for o in said)==want

def clip(p, y): return ce(p@p.T.roll(1, 0), torch.arange(len(p)))
def same_class(p, y): return -((p@p.T).log_softmax(1)*(y==y[:,None])).mean()
def barlow(p, y): return ((p-p.mean(0)).T@(p-p.mean(0))/len(p)-torch.eye(3)).square().sum()

@pytest.mark.parametrize('loss', [clip,same_class,barlow], ids=lambda f: f.__name__)
def test_a_loss_that_compares_samples_is_announced(loss):
    assert says('compares the samples of the batch', linear(), BATCHES, mixup(), loss=loss)==1

class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear(6, 8)
    def forward(self, x): return self.a(x)@self.a(x).T

def test_a_loss_of_similarities_is_announced():
    def loss(p, y): return ce(p, torch.arange(len(p)))
    assert says('compares the samples of the batch', Square(), BATCHES, mixup(), loss=loss)==1

def draws(p, y): return (ce(p, y, reduction='none')*torch.rand(len(p))).mean()
def hard(p, y): return ce(p, y, reduction='none').topk(4)[0].mean()
def focal(p, y): return ((1-p.softmax(1).gather(1, y[:,None]))[:,0]**2*ce(p, y, reduction='none')).mean()
def soft(p, y): return -(F.one_hot(y, 3)*p.log_softmax(1)).sum(1).mean()
def plain_sum(p, y): return ce(p, y, reduction='sum')/100
def weighted(p, y): return ce(p, y, weight=torch.tensor([1.,2.,5.]))
def ignored(p, y): return ce(p, y.where(y>0, -100))
def standard(p, y): return ((p-p.mean(0))/p.std(0)-F.one_hot(y, 3)).square().mean()

@pytest.mark.parametrize('loss', [draws,hard,focal,soft,plain_sum,weighted,ignored,standard], ids=lambda f: f.__name__)
@pytest.mark.parametrize('zero', [False,True], ids=['a head','a head that is zero'])
def test_a_loss_of_single_samples_is_not_warned_of(loss, zero):
    model = linear()
    if zero:
        with torch.no_grad():
            for p in model.parameters(): p.zero_()
    assert not says('', model, BATCHES, mixup(), loss=loss)

class Lazy(nn.Module):
    "Makes its class weights when it is called first"
    w = None
    def forward(self, p, y):
        if self.w is None: self.w = torch.ones(p.shape[1])
        return ce(p, y, weight=self.w)

class Parts(nn.Module):
    "Keeps its parts for a logger"
    def forward(self, p, y):
        self.parts = dict(ce=ce(p, y), size=p.square().mean())
        return sum(self.parts.values())

@pytest.mark.parametrize('loss', [Lazy,Parts], ids=lambda o: o.__name__)
def test_what_a_loss_makes_once_or_keeps_is_no_state(loss): assert not says('', linear(), BATCHES, mixup(), loss=loss())

def ramp():
    def loss(p, y):
        loss.n += 1
        return ce(p, y)*min(1., loss.n/100)
    loss.n = 0
    return loss

def counts():
    n = itertools.count()
    return lambda p,y: ce(p, y)*(1. if next(n)>99 else .5)

@pytest.mark.parametrize('make,word', [(ramp,'changes a state of its own'),(counts,'holds an iterator')], ids=['an attribute of a function','an iterator'])
def test_a_loss_that_counts_its_calls_is_announced(make, word): assert says(word, linear(), BATCHES, mixup(), loss=make())==1

def test_a_trial_does_not_count():
    loss = ramp()
    train(linear(), BATCHES, mixup(), loss=loss)
    assert loss.n==2*len(BATCHES)+1 # one of validation

def test_a_loss_with_an_entry_for_each_sample_is_announced():
    class Mean(Callback):
        order,run_valid = 80,False
        def after_loss(self): self.learn.loss_grad = self.loss_grad.mean()
    for loss in (nn.CrossEntropyLoss(reduction='none'),lambda p,y: ce(p, y, reduction='none')):
        assert says('an entry for each sample', linear(), BATCHES, mixup(), Mean(), loss=loss)==1


# Containers that a loss or a callback changes

@pytest.mark.parametrize('kind', [dict,list])
def test_a_loss_may_put_something_else_into_predictions(kind):
    class Out(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = linear()
        def forward(self, x): return dict(out=self.a(x)) if kind is dict else [self.a(x)]
    key = 'out' if kind is dict else 0
    def loss(p, y):
        p[key] = p[key]/2
        if kind is dict: p['more'] = y
        return ce(p[key], y)
    model = Out()
    class Check(Callback):
        order,run_valid,n = 80,False,0
        def after_loss(self):
            m,y,p = self.learn.mixer,self.y,self.learn.pred[key]
            want = m.lam*ce(p/2, y)+(1-m.lam)*ce(p/2, y[m.perm])
            assert torch.allclose(self.loss_grad, want, atol=1e-6)
            self.n += 1
    assert not train(model, BATCHES, mixup(), check := Check(), loss=loss)[1] and check.n==len(BATCHES)

def test_a_loss_that_writes_into_what_both_targets_share_is_refused():
    def loss(p, y):
        y['mask'] -= 1
        return F.mse_loss(p, y['mask'])+y['value'].mean()
    p,mask = torch.randn(4),torch.randn(4)
    own,partners = (dict(mask=mask, value=torch.randn(4)) for _ in range(2))
    with pytest.raises(ValueError, match='writes into them'): fm.MixUpLoss(loss)(p, own, yb1=(partners,), lam=.5)

class Data:
    "Targets in a dict"
    def __len__(self): return 64
    def __getitem__(self, i): return X[i],dict(t=X[i,0])

def test_targets_that_are_replaced_in_a_dict_are_followed():
    class Scale(Callback):
        order,run_valid = 60,False
        def after_pred(self): self.y['t'] = self.y['t']*10
    class Check(Callback):
        order,run_valid,n = 80,False,0
        def after_loss(self):
            m,t = self.learn.mixer,X[8*self.iter:8*self.iter+8,0]*10
            def mse(t): return F.mse_loss(self.pred[:,0], t)
            assert torch.allclose(self.loss_grad, m.lam*mse(t)+(1-m.lam)*mse(t[m.perm]), rtol=1e-5)
            self.n += 1
    dl = DataLoader(Data(), batch_size=8)
    learn = Learner(DataLoaders(dl, dl), linear(6, 1), loss_func=lambda p,y: F.mse_loss(p[:,0], y['t']), cbs=[mixup(),Scale(),check := Check()])
    with pytest.warns(UserWarning, match='changed targets after their partners'), learn.no_bar(), learn.no_logging(): learn.fit(1, 0.)
    assert check.n==8

def test_targets_that_lose_samples_behind_the_mixer_are_refused():
    class Drop(Callback):
        run_valid = False
        def after_pred(self): self.learn.pred,self.learn.yb = self.pred[:5],(self.y[:5],)
    assert 'the 8 samples that were mixed' in train(linear(), BATCHES, mixup(), Drop())[1]

def test_masks_that_change_behind_a_choice_for_each_sample_are_refused():
    class Half(Callback):
        def after_pred(self): self.learn.yb = (self.y[:,::2,::2],)
    batches = [(torch.randn(8,1,8,8),torch.randint(0, 3, (8,8,8)))]
    choice = fm.MixChoice(fm.MixUp(1.), fm.CutMix(), per_sample=True)
    assert 'MixChoice pastes it in some samples alone' in train(nn.Conv2d(1, 3, 1, stride=2), batches, choice, Half())[1]

@pytest.mark.parametrize('loss', [nn.MSELoss(),nn.BCEWithLogitsLoss()], ids=str)
def test_targets_may_get_another_shape_behind_the_mixer(loss):
    class Unsqueeze(Callback):
        def after_pred(self): self.learn.yb = (self.y[:,None],)
    rows,error,said,_ = train(linear(6, 1), cut(8, X, torch.rand(64)), fm.MixUp(8.), Unsqueeze(), loss=loss)
    assert not error and len(rows)==8 and not said

def test_an_input_that_is_added_behind_the_mixer_is_announced():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = linear(8)
        def forward(self, x, z=None): return self.a(torch.cat([x,x[:,:2] if z is None else z], 1))
    class Add(Callback):
        def __init__(self, order): self.order = order
        def before_batch(self): self.learn.xb = (*self.xb,self.x[:,:2].sin())
    assert says('one more input', Two(), BATCHES, fm.MixUp(8.), Add(60))==1
    assert not says('one more input', Two(), BATCHES, fm.MixUp(8.), Add(-5))


# Inputs that are no quantities, and rows that are no samples

MISSING = X.where(torch.rand(64,6)>.2, -999)
UNIT = torch.rand(64,6).where(torch.rand(64,6)>.2, -1)
HOLES = torch.rand(64,1,8,8).where(torch.rand(64,1,8,8)>.1, 1e4)
NANS = X.where(torch.rand(64,6)>.2, float('nan'))

class Fills(nn.Module):
    "Hides what is missing by itself"
    def __init__(self, n):
        super().__init__()
        self.a = linear(2*n)
    def forward(self, x):
        gone = x.isnan() | (x<-900) | (x==-1) | (x>900)
        return self.a(torch.cat([x.masked_fill(gone, 0),gone.float()], 1).flatten(1))

@pytest.mark.parametrize('x', [MISSING,UNIT,HOLES,NANS], ids=['-999 in a table','-1 beside numbers in [0,1]','10000 in pictures','NaN'])
@pytest.mark.parametrize('mixer', [fm.MixUp(8.),fm.ManifoldMixUp(8.)], ids=['MixUp','ManifoldMixUp'])
def test_values_that_mark_what_is_missing_are_announced(x, mixer):
    batches = cut(32, x, Y)
    assert says('as what is missing may be marked', Fills(x[0].numel()), batches, mixer)==1

def test_named_inputs_are_quantities():
    assert not says('missing', Fills(6), cut(32, MISSING, Y), fm.MixUp(8., inputs=0))

ORDINARY = dict(normal=X, pictures=torch.rand(64,3,8,8), binary=(X>0).float(), counts=torch.poisson(torch.full((64,6), 3.)), clipped=X.clamp(-1, 1), relu=X.relu(),
    border=F.pad(torch.randn(64,1,6,6), (1,1,1,1), value=-2.1), sparse=X*(torch.rand(64,6)>.8), scales=X*10**torch.arange(6.), heavy=torch.randn(64,6).exp().square())

@pytest.mark.parametrize('x', ORDINARY.values(), ids=ORDINARY)
def test_ordinary_values_are_not_warned_of(x):
    assert not says('missing', nn.Sequential(nn.Flatten(),linear(x[0].numel())), cut(8, x, Y), fm.MixUp(8.))

class Graph(nn.Module):
    "Each node with the mean of its neighbours"
    def __init__(self, adjacency=None):
        super().__init__()
        self.a,self.adjacency = linear(),adjacency
    def forward(self, x, edges=None):
        if edges is None: return self.a(x+self.adjacency@x)
        return self.a(x.index_add(0, edges[1], x[edges[0]]))

EDGES = torch.randint(0, 8, (2,20))

@pytest.mark.parametrize('held', [False,True], ids=['edges given','a matrix held'])
def test_rows_that_refer_to_others_are_announced(held):
    model = Graph((torch.rand(8,8)>.5).float() if held else None)
    batches = [(x,y) if held else (x,EDGES,y) for x,y in BATCHES]
    assert says('When samples of the batch change places', model, batches, fm.MixUp(8., inputs=0), n_inp=1 if held else 2)==1

class Prototypes(nn.Module):
    "Compares queries with supports, one or more for each class"
    def __init__(self):
        super().__init__()
        self.a = linear(6, 8)
    def forward(self, x, support): return self.a(x)@self.a(support).T

def test_a_support_set_is_announced_unless_the_queries_are_named():
    support = torch.randn(64,6) # another one in each batch
    batches = cut(8, X, support, torch.randint(0, 8, (64,)))
    assert says('When samples of the batch change places', Prototypes(), batches, fm.MixUp(8.), n_inp=2)==1
    assert not says('change places', Prototypes(), batches, fm.MixUp(8., inputs=0), n_inp=2)

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a,self.norm = linear(12),nn.BatchNorm1d(12)
    def forward(self, x, z): return self.a(self.norm(torch.cat([x,z], 1)))

@pytest.mark.parametrize('inputs', [None,0], ids=['both','one'])
def test_several_inputs_that_belong_together_are_not_warned_of(inputs):
    assert not says('', Pair(), cut(8, X, X.flip(1), Y), fm.MixUp(8., inputs=inputs), n_inp=2)

class Tasks(nn.Module):
    "Does one of two tasks, and says the first in another way than the second"
    def __init__(self):
        super().__init__()
        self.a,self.b = linear(6, 6),linear()
    def forward(self, x, task): return self.b(self.a(x)+(x if task in ('b',1) else 0))

@pytest.mark.parametrize('tasks', ['ab',(0,1),torch.tensor([0,1]).unbind()], ids=['strings','numbers','tensors'])
def test_each_task_that_a_batch_names_is_tried(tasks):
    model = Tasks()
    batches = [(x,tasks[i%2],y) for i,(x,y) in enumerate(BATCHES)]
    rows,error,*_ = train(model, batches, fm.ManifoldMixUp(8.), n_inp=2)
    assert not error and len(rows)==8
    for i,b in enumerate(rows):
        with torch.no_grad(): assert torch.allclose(b.pred, lerp(b, model(b.x[0], tasks[i%2])), atol=1e-5)

@pytest.mark.parametrize('lens', [[3,5,2,6,4,1,2,5],torch.tensor([3,5,2,6,4,1,2,5]).numpy()], ids=['list','array'])
def test_lengths_that_a_model_is_given_by_an_attribute_are_announced(lens):
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.a,self.lens = linear(),None
        def forward(self, x):
            if self.lens is None: return self.a(x)
            at = torch.arange(6)<torch.as_tensor(self.lens)[:,None]
            return self.a(x*at)
    class Sets(Callback):
        def before_batch(self): self.learn.model.lens = lens[self.iter:]+lens[:self.iter] if isinstance(lens, list) else lens[::-1].copy() if self.iter%2 else lens
    assert says('The model holds lens', Means(), BATCHES, fm.MixUp(8.), Sets())==1

def test_a_flat_mask_is_announced():
    flat = torch.randint(0, 3, (64,64))
    model = nn.Sequential(nn.Conv2d(1, 3, 1),nn.Flatten(2))
    assert says('as many entries as the input has pixels', model, cut(8, torch.randn(64,1,8,8), flat), fm.CutMix())==1

def test_a_model_that_is_exchanged_is_tried_again():
    class Skips(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net,self.b = net,linear()
        def forward(self, x): return self.net(x)+self.b(x)
    class Exchange(Callback):
        def before_batch(self):
            if self.iter==3: self.learn.model = Skips(self.learn.model)
    net = nn.Sequential(linear(6, 6),linear())
    assert 'they do not' in train(net, BATCHES, fm.ManifoldMixUp(8., layers='0', mix_input=False), Exchange())[1]

def dice(p, y):
    p,y = p.softmax(1),F.one_hot(y, 3).movedim(-1, 1)
    return 1-(2*(p*y).sum((0,2,3))/(p+y).sum((0,2,3))).mean()

@pytest.mark.parametrize('loss', [dice,lambda p,y: ce(p, y),lambda p,y: F.mse_loss(p, F.one_hot(y, 3).movedim(-1, 1).float())], ids=['dice','ce','mse'])
def test_a_loss_of_masks_is_not_warned_of(loss):
    batches = cut(8, torch.randn(32,1,6,6), torch.randint(0, 3, (32,6,6)))
    assert not says('', nn.Conv2d(1, 3, 1), batches, mixup(), loss=loss)

@pytest.mark.parametrize('y', [torch.rand(64,3),torch.rand(64,3).round(),torch.randint(0, 2, (64,3)).bool(),torch.randint(0, 2, (64,3))], ids=['soft','floats','Booleans','integers'])
def test_a_loss_of_several_labels_is_not_warned_of(y):
    def loss(p, y): return F.binary_cross_entropy_with_logits(p, y.float())
    assert not says('', linear(), cut(8, X, y), mixup(stack_y=True), loss=loss)

class Hides(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = linear(4)
    def forward(self, x, m): return self.a((x*m[...,None]).sum(1))

def test_data_that_a_mask_hides_are_mixed_and_announced():
    m = (torch.arange(5)<torch.tensor([5,3,4,2,5,1,3,4])[:,None]).float()
    x,net = torch.randn(8,5,4),Hides()
    for batch,n in (((x,m,Y[:8]),1),((x*m[...,None],m,Y[:8]),0)):
        seen,error,said,_ = train(net, [batch], fm.MixUp(8.), n_inp=2)
        b, = seen
        with torch.no_grad(): want = net(lerp(b, b.x[0]), torch.maximum(m, m[b.perm]))
        assert error is None and torch.allclose(b.pred, want, atol=1e-5)
        assert sum('hold data of their own' in o for o in said)==n

def test_a_loss_may_run_the_model_again():
    "As those of consistency do. What a trial of the loss puts back is no change for the backward pass"
    torch.manual_seed(0)
    net,seen = nn.Sequential(nn.Linear(6, 8),nn.BatchNorm1d(8),nn.Linear(8, 3)),{}
    class Keep(Callback):
        order = 60
        def before_batch(self): seen['x'] = self.x
    def loss(p, y): return ce(p, y)+F.mse_loss(net(seen['x']+.1), p)
    rows,error,*_ = train(net, BATCHES, mixup(), Keep(), loss=loss)
    assert error is None and len(rows)==len(BATCHES)

AMOUNT = (torch.randn(64,1)*8+70)*(torch.rand(64,1)>.5)
@pytest.mark.parametrize('x', [AMOUNT,(AMOUNT-AMOUNT.mean())/AMOUNT.std()], ids=['as it is','normalised'])
def test_an_amount_of_nothing_is_not_warned_of(x):
    assert not says('missing', linear(7), cut(32, torch.cat([X,x], 1), Y), fm.MixUp(8.))

class Deep(nn.Module):
    "Rounding grows from layer to layer"
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [[nn.Linear(16, 16),nn.BatchNorm1d(16),nn.SiLU()] for _ in range(40)]
        self.a,self.h = nn.Sequential(nn.Linear(6, 16),*[o for l in layers for o in l]),nn.Linear(22, 3)
    def forward(self, x, z): return self.h(torch.cat([self.a(x),z], 1))

def test_rounding_in_a_deep_network_is_not_warned_of():
    assert not says('change places', Deep(), cut(8, X, X.flip(1), Y), fm.MixUp(8.), n_inp=2)

def rmse(p, y): return F.mse_loss(p[:,0], y.float()).sqrt()
def focal_mean(p, y): return (1-(-ce(p, y)).exp())**2*ce(p, y)
def soft_dice(p, y):
    p = p.softmax(1)[:,1]
    return 1-(2*(p*y).sum()+1)/(p.sum()+y.sum()+1)

@pytest.mark.parametrize('loss', [rmse,focal_mean,soft_dice], ids=lambda f: f.__name__)
@pytest.mark.parametrize('y', [torch.zeros(64).long(),(torch.arange(64)%31==0).long()], ids=['no positives','few'])
def test_a_loss_of_rare_labels_is_not_warned_of(loss, y): assert not says('', linear(), cut(8, X, y), mixup(), loss=loss)

def test_a_loss_of_empty_masks_is_not_warned_of():
    y = torch.zeros(32,6,6).long()
    y[3,2:4,2:4] = 1
    assert not says('', nn.Conv2d(1, 3, 1), cut(8, torch.randn(32,1,6,6), y), mixup(), loss=dice)

def test_a_contrastive_loss_beside_targets_that_are_all_alike_is_announced():
    assert says('compares the samples of the batch', linear(), cut(8, X, torch.zeros(64)), mixup(), loss=clip)==1

@pytest.mark.parametrize('draw', [lambda n: torch.tensor([random.random() for _ in range(n)]),lambda n: torch.tensor(np.random.rand(n)),
    lambda n: torch.distributions.Beta(2., 2.).sample((n,)),
    lambda n, own=np.random.default_rng(0): torch.tensor(own.random(n))], ids=['random','NumPy','Beta','a generator of its own'])
def test_what_is_drawn_for_each_sample_is_not_warned_of(draw):
    def loss(p, y): return (ce(p, y, reduction='none')*draw(len(p))).mean()
    class Noisy(Pair):
        def forward(self, x, z): return super().forward(x+.1*draw(len(x))[:,None].float(), z)
    assert not says('changes a state', linear(), BATCHES, mixup(), loss=loss)
    assert not says('change places', Noisy(), cut(8, X, X.flip(1), Y), fm.MixUp(8.), n_inp=2)

def test_targets_that_are_cast_behind_the_mixer_are_not_warned_of():
    class Cast(Callback):
        def after_pred(self): self.learn.yb = (self.y.int()[:,None],)
    def loss(p, y): return ce(p, y.flatten().long())
    assert not says('', linear(), BATCHES, mixup(), Cast(), loss=loss)

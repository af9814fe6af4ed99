"""The rows of `accuracy.py`: data, network, budget and mixes of each"""
import fastmix.all as fm, numpy as np, pandas as pd, torch, torch.nn.functional as F
from functools import partial
from typing import NamedTuple
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat, MSELossFlat
from fastai.metrics import accuracy, rmse
from fastai.optimizer import OptimWrapper
from fastai.tabular.model import TabularModel
from accuracy_data import *
from accuracy_measure import *
from accuracy_nets import *

def learner(d, net, loss=None, metrics=accuracy, wrong=None):
    res = Learner(d, net, loss_func=loss or CrossEntropyLossFlat(), metrics=metrics, cbs=CpuTime())
    res.wrong = wrong
    return res

def digits_row(noise):
    from sklearn.datasets import load_digits
    d = load_digits()
    x,y = torch.tensor(d.images/16, dtype=torch.float32)[:,None],torch.tensor(d.target)
    def get_learner(seed):
        y1,wrong = replaced(y[:1000], noise, 10, seed)
        return learner(dls((x[:1000],y1), (x[1000:],y[1000:]), 50), digits_net(), wrong=wrong)
    return get_learner

def fashion_row(path, noise, n=2000, n_val=2000):
    z = npz(path)
    x,y,xv,yv = images(z['x_train']),labels(z['y_train']),images(z['x_test'][:n_val]),labels(z['y_test'][:n_val])
    def get_learner(seed):
        idx = some(n, len(y), seed)
        y1,wrong = replaced(y[idx], noise, 10, seed)
        return learner(dls((x[idx],y1), (xv,yv), 50), fashion_net(), wrong=wrong)
    return get_learner

def cifar_row(path, n=10000, n_val=2000):
    xv,yv = cifar(path, range(50000, 50000+n_val))
    def get_learner(seed): return learner(dls(cifar(path, some(n, 50000, seed).tolist()), (xv,yv), 64, flip), cifar_net())
    return get_learner

def camvid_row(path):
    z = npz(path)
    half = lambda s: (F.avg_pool2d(images(z['x_'+s]), 2),labels(z['y_'+s][:,::2,::2]))
    train,valid = half('train'),half('test')
    def get_learner(seed):
        net = Fast(UNet(11)).to(memory_format=torch.channels_last)
        return learner(dls(train, valid, 8, flip), net, CrossEntropyLossFlat(axis=1, ignore_index=11), MIoU())
    return get_learner

def text_row(path, n, length, c):
    df = pd.read_csv(path, keep_default_na=False)
    train,test = (np.flatnonzero(df.split==o) for o in ('train','test'))
    def get_learner(seed):
        idx = train[some(n, len(train), seed)]
        ids,y,vocab = texts(df, idx, length)
        return learner(dls((ids[idx],y[idx]), (ids[test],y[test]), 50), TextCNN(vocab, c))
    return get_learner

def adult_row(path, n=5000):
    df = pd.read_csv(path, keep_default_na=False)
    train,test = (np.flatnonzero(df.split==o) for o in ('train','test'))
    cats = [o for o in df if o not in ('split','income') and not pd.api.types.is_numeric_dtype(df[o])]
    cat = torch.tensor(np.stack([df[o].astype('category').cat.codes for o in cats], 1).astype('int64'))
    cont = torch.tensor(df.select_dtypes('number').to_numpy().astype('float32'))
    y = torch.tensor(df.income.str.startswith('>').to_numpy().astype('int64'))
    sizes = [(k,min(20, k//2+1)) for k in (cat.amax(0)+1).tolist()]
    def get_learner(seed):
        idx = train[some(n, len(train), seed)]
        z = (cont-cont[idx].mean(0))/cont[idx].std(0)
        return learner(dls((cat[idx],z[idx],y[idx]), (cat[test],z[test],y[test]), 64), TabularModel(sizes, z.shape[1], 2, [200,100]))
    return get_learner

def signal_row(path, c):
    z = npz(path)
    (x,y),(xv,yv) = ((torch.from_numpy(z['x_'+s])[:,None],labels(z['y_'+s])) for s in ('train','test'))
    def get_learner(seed): return learner(dls((x,y), (xv,yv), 50), signal_net(c))
    return get_learner

def quantity_row(path, kind, bs):
    df = pd.read_csv(path)
    split = dict(airfoil=lambda seed: shuffled(df, seed), skillcraft=lambda seed: by_group(df, 'LeagueIndex', 'ActionLatency'),
        crime=lambda seed: by_group(df, 'state', 'ViolentCrimesPerPop', ['fold']))[kind]
    def get_learner(seed):
        train,test = split(seed)
        res = learner(dls(train, test, bs), mlp(train[0].shape[1]), MSELossFlat(), rmse)
        res.opt_func = partial(OptimWrapper, opt=torch.optim.Adam)
        return res
    return get_learner

def fast(learn, few=500):
    "The Learner with PyTorch's AdamW, and validated in full in the last epoch alone"
    learn.opt_func = partial(OptimWrapper, opt=torch.optim.AdamW)
    return learn.add_cb(LastInFull(Batches(*(t[:few] for t in learn.dls.valid.ts), bs=512)))

def few_digits_row(n=200, noise=0.):
    from sklearn.datasets import load_digits
    d = load_digits()
    x,y = torch.tensor(d.images/16, dtype=torch.float32)[:,None],torch.tensor(d.target)
    def get_learner(seed):
        idx = some(n, 1000, seed)
        y1,_ = replaced(y[idx], noise, 10, seed)
        return fast(learner(dls((x[idx],y1), (x[1000:],y[1000:]), 50), digits_net()), 100)
    return get_learner

def long_fashion_row(path, noise=0., bs=100, **kwargs):
    get = fashion_row(path, noise, **kwargs)
    def get_learner(seed):
        learn = get(seed)
        learn.dls.train.bs = bs
        return fast(learn)
    return get_learner

def long_cifar_row(path, n=1000, n_val=2000):
    valid = cifar(path, range(50000, 50000+n_val))
    def get_learner(seed): return fast(learner(dls(cifar(path, some(n, 50000, seed).tolist()), valid, 64, flip), small_cifar_net()))
    return get_learner

def long_camvid_row(path):
    get = camvid_row(path)
    def get_learner(seed): return fast(get(seed), 32)
    return get_learner

def long_tailed_row(path, most=400, ratio=100, n_val=2000):
    z = npz(path)
    x,y,xv,yv = images(z['x_train']),labels(z['y_train']),images(z['x_test'][:n_val]),labels(z['y_test'][:n_val])
    def get_learner(seed):
        idx = long_tailed(y, most, ratio, seed)
        return fast(learner(dls((x[idx],y[idx]), (xv,yv), 100), fashion_net(), metrics=BalancedAccuracy()))
    return get_learner

def flowers_row(path, n, n_val=1000):
    order = some(4311, 4311, 12345).tolist()
    xv,yv = photos(path, order[:n_val])
    def get_learner(seed):
        idx = [order[n_val+i] for i in some(n, 4311-n_val, seed).tolist()]
        learn = learner(dls(photos(path, idx), (middle(xv),yv), 16, crops), Pretrained(5), metrics=[accuracy,Ece()])
        learn.splitter = lambda model: model.groups()
        return fast(learn, 100)
    return get_learner


# Mixes

def by_default(names):
    "Names of mixers to mixers as they come by default; `MixUp8` is a strong one against wrong labels"
    make = dict(none=lambda: None, MixUp8=lambda: fm.MixUp(8.), MixChoice=lambda: fm.MixChoice(fm.MixUp(), fm.CutMix()))
    return lambda: {o: make.get(o, getattr(fm, o, None))() for o in f'none {names}'.split()}

def for_quantities(): # with C-Mixup's alpha
    return dict(none=None, MixUp=fm.MixUp(2.), ManifoldMixUp=fm.ManifoldMixUp(2.), hidden=fm.ManifoldMixUp(2., mix_input=False))

def for_imbalance():
    return dict(none=None, weights=ClassWeights(), MixUp=fm.MixUp(), MixUp_weights=[fm.MixUp(),ClassWeights()],
        MixUp_deferred=[fm.MixUp(),ClassWeights(0.8)])

def randperm(yb, generator): return torch.randperm(len(yb[0]), generator=generator)

def settings(cut=True):
    "No mix, each mixer by default, and with one setting changed"
    ways = [dict(), dict(per_sample=False), dict(pair=randperm)]
    each = {fm.MixUp: [dict(alpha=0.2), dict(alpha=1.), dict(dedup=False)],
        fm.ManifoldMixUp: [dict(alpha=0.4), dict(alpha=2.), dict(dedup=False), dict(mix_input=False)]}
    if cut: each[fm.CutMix] = [dict(alpha=0.4), dict(alpha=2.), dict(dedup=True), dict(p=0.5)]
    said = lambda o: ','.join(f" {k}={getattr(v, '__name__', v)}" for k,v in o.items())
    return dict(none=None) | {m.__name__+said(o): m(**o) for m,more in each.items() for o in ways+more}


class Row(NamedTuple):
    data:str # Key of `FILES`; None: none is needed
    func:object # Function that is given the file, if any, and `args`, and returns `get_learner`
    args:tuple
    mixes:object # Function that returns what `compare` calls mixes
    n_epoch:int
    lr:float
    seeds:int
    measure:object
    fit:str = 'fit_one_cycle'

IMAGE = 'MixUp CutMix ManifoldMixUp OutputMixUp MixChoice'
THREE = by_default('MixUp CutMix ManifoldMixUp')
TWO = by_default('MixUp ManifoldMixUp')
FILES = dict(leaf='ucr_swedishleaf.npz', ecg='ucr_ecg5000.npz', adult='adult.csv.gz', sst2='sst2.csv.gz', agnews='ag_news_12k.csv.gz',
    fashion='fashion_mnist.npz', camvid='camvid.npz', cifar='cifar10_jpeg.npz', airfoil='airfoil.csv.gz', skillcraft='skillcraft.csv.gz',
    crime='communities.csv.gz', flowers='flowers128.zip')
SHORT = { # of version 0.1
    **{f'digits-{o}': Row(None, digits_row, (o/100,), by_default(IMAGE+' MixUp8'*(o>0)), 30, 1e-2, 5, attacked) for o in (0,20,50)},
    'leaf': Row('leaf', signal_row, (15,), THREE, 60, 1e-2, 5, calibration),
    'ecg': Row('ecg', signal_row, (5,), THREE, 30, 1e-2, 5, calibration),
    'adult': Row('adult', adult_row, (), TWO, 8, 3e-3, 5, calibration),
    **{f'sst2-{n}': Row('sst2', text_row, (n,40,2), TWO, e, 3e-3, 5, calibration) for n,e in ((1000,15),(5000,8))},
    **{f'agnews-{n}': Row('agnews', text_row, (n,50,4), TWO, e, 3e-3, 5, calibration) for n,e in ((1000,15),(5000,8))},
    **{f'fashion-{o}': Row('fashion', fashion_row, (o/100,), by_default(IMAGE+' MixUp8'*(o>0)), 25, 5e-3, 3, attacked) for o in (0,20,50)},
    'camvid': Row('camvid', camvid_row, (), THREE, 15, 1e-2, 3, cpu_time),
    'cifar': Row('cifar', cifar_row, (), by_default(IMAGE), 15, 5e-3, 3, attacked)}
QUANTITIES = {
    'airfoil': Row('airfoil', quantity_row, ('airfoil',16), for_quantities, 100, 1e-2, 10, mape, 'fit'),
    'skillcraft': Row('skillcraft', quantity_row, ('skillcraft',32), for_quantities, 50, 1e-2, 10, mape, 'fit'),
    'crime': Row('crime', quantity_row, ('crime',16), for_quantities, 200, 1e-3, 5, mape, 'fit'),
    'airfoil-300': Row('airfoil', quantity_row, ('airfoil',16), for_quantities, 300, 1e-2, 10, mape, 'fit')}
LONG = {
    **{f'digits-long-{o}': Row(None, few_digits_row, (), THREE, o, 1e-2, 5, calibration) for o in (30,100,300)},
    **{f'fashion-long-{o}': Row('fashion', long_fashion_row, (), THREE, o, 5e-3, 3, calibration) for o in (25,100,300)},
    **{f'cifar-long-{o}': Row('cifar', long_cifar_row, (), THREE, o, 5e-3, 3, calibration) for o in (15,60,150)},
    'camvid-60': Row('camvid', long_camvid_row, (), THREE, 60, 1e-2, 2, cpu_time)}
FINE = by_default('MixUp CutMix ManifoldMixUp MixChoice')
FINE_TUNED = {f'flowers-{n}-{o}': Row('flowers', flowers_row, (n,), FINE, o, 2e-3, 3, cpu_time, 'fine_tune')
    for n,o in ((200,15),(1000,5))}
IMBALANCED = {'long-tailed': Row('fashion', long_tailed_row, (), for_imbalance, 30, 5e-3, 5, by_frequency)}
DEFAULTS = {
    'defaults-digits': Row(None, few_digits_row, (), settings, 30, 1e-2, 5, calibration),
    'defaults-wrong': Row(None, few_digits_row, (200,0.2), settings, 30, 1e-2, 5, calibration),
    'defaults-leaf': Row('leaf', signal_row, (15,), settings, 60, 1e-2, 5, calibration),
    'defaults-airfoil': Row('airfoil', quantity_row, ('airfoil',16), partial(settings, False), 50, 1e-2, 5, mape, 'fit'),
    'defaults-fashion': Row('fashion', long_fashion_row, (), settings, 25, 5e-3, 3, calibration)}
ROWS = SHORT | QUANTITIES | LONG | FINE_TUNED | IMBALANCED | DEFAULTS

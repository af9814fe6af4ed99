"""What users of fastai, torchvision, timm and kornia are likely to get wrong: each time one short message with the line that works, and a
Learner that can still be trained. `python tests/test_mistakes.py` prints all messages"""
import inspect, re, sys, warnings, numpy as np, pytest, torch
import fastai.callback.mixup as theirs
from torch import nn
from fastai.basics import Callback, DataBlock, DataLoaders
from fastai.callback.schedule import SchedCos
from fastai.vision.core import TensorBBox
import fastmix.all as fm
from fastmix.all import CutMix, FMix, ManifoldMixUp, Mixer, MixChoice, MixUp, MixUpLoss, OutputMixUp, PlainLoop, ResizeMix, StackedModel
from fastmix.checks import what
from fastmix.settings import _owners
from helpers import DATA, Y, fit, get_learn, net

x,y,ce,model = DATA['image'],Y,nn.CrossEntropyLoss(),net()

def own_loss(pred, y): return (pred.softmax(1)[:,0]-y).abs().mean()

class NoMix(Mixer): pass

class Second(Callback):
    "Adds a mixer in the middle of a fit"
    def after_batch(self):
        if self.training and not any(isinstance(o, CutMix) for o in self.learn.cbs): self.learn.add_cb(CutMix())

class One(nn.Module):
    "One output of several"
    def forward(self, x): return x[:,0]

def one_output(): return dict(model=nn.Sequential(net(), One()), loss_func=nn.MSELoss(), dls=loader(x, y.float()))

def _rows(o): return [dict(zip(o, v)) for v in zip(*o.values())] if isinstance(o, dict) else [*o]
def _dls(items): return DataLoaders.from_dsets(items, items, bs=4, device='cpu', num_workers=0)
def loader(*parts): return _dls([*zip(*map(_rows, parts))])
def bare_loader(x): return _dls([*x])

def first_batch(**tfms):
    "The first batch of data whose transforms hold a mixer"
    block = DataBlock(get_x=lambda i: x[i], get_y=lambda i: y[i], **tfms)
    return block.dataloaders(range(8), bs=4, device="cpu", num_workers=0).one_batch()

def collate(f): return next(iter(torch.utils.data.DataLoader([*zip(x,y)], batch_size=4, collate_fn=f)))

def compare(**kw): return fm.compare(**(dict(get_learner=lambda seed: get_learn(), n_epoch=1, seeds=1) | kw))

# What is typed, and what the message has to say, between bars
table = {
    # other names for settings
    'MixUp(prob=.5)': "'prob': did you mean p?",
    'MixUp(mixup_prob=.5)': "'mixup_prob': did you mean p?",
    'CutMix(cutmix_prob=.5)': "'cutmix_prob': did you mean p?",
    'MixUp(mixup_alpha=.4)': "'mixup_alpha': did you mean alpha?",
    'CutMix(cutmix_alpha=1.)': "'cutmix_alpha': did you mean alpha?",
    'CutMix(beta=1.)': "'beta': did you mean alpha?",
    'MixUp(lambda_val=(0.,.5))': "'lambda_val': did you mean alpha?",
    'CutMix(cutmix_minmax=(.2,.5))': "'cutmix_minmax': did you mean minmax?",
    'CutMix(cut_size=(.2,.5))': "'cut_size': did you mean minmax?",
    'CutMix(uniform_sampling=True)': "'uniform_sampling': did you mean uniform?",
    'ManifoldMixUp(module_list=["0"])': "'module_list': did you mean layers?",
    'MixUp(switch_prob=.5)': "MixChoice(|weights",
    'MixUp(mode="elem")': "'mode': did you mean per_sample?",
    'MixUp(same_on_batch=True)': "per_sample=False",
    'MixUp(num_classes=10)': "not needed",
    'MixUp(label_smoothing=.1)': "CrossEntropyLoss(label_smoothing=",
    'CutMix(correct_lam=True)': "always exact",
    'MixUp(alhpa=.4)': "did you mean alpha?",
    'MixUp(minmax=(.2,.5))': "CutMix",
    'ResizeMix(alpha=.4)': "lo|hi",
    'MixUp(masks=0)': "CutMix",
    'OutputMixUp(inputs=0)': "inputs|MixUp",
    'learn.cutmix(prob=.5)': "'prob': did you mean p?",
    # values of another kind
    'MixUp("0.4")': "alpha|number|'0.4'",
    'MixUp(None)': "alpha|number",
    'MixUp(True)': "alpha|number",
    'MixUp(-1)': "alpha|0 or more",
    'MixUp(float("nan"))': "alpha|finite",
    'MixUp(SchedCos)': "SchedCos(0., 0.6)",
    'MixUp((.2,.4))': "alpha|number",
    'learn.mixup(CutMix())': "alpha|CutMix|learn.mix(",
    'MixUp(stack_y="False")': "stack_y|True, False or None",
    'MixUp(dedup=1)': "dedup|True or False",
    'MixUp(per_sample=0)': "per_sample|True, False or None",
    'MixUp(stack_x="yes")': "stack_x|True or False",
    'CutMix(uniform="yes")': "uniform|True or False",
    'CutMix(minmax=(.3,.5), uniform=True)': "minmax or uniform=True, but got both|middle|alpha or length",
    'fm.cutmix_batch(x, minmax=(.3,.5), uniform=True)': "minmax or uniform=True, but got both|alpha or length",
    'ManifoldMixUp(mix_input="no")': "mix_input|True or False",
    'MixChoice(MixUp(), CutMix(), per_sample=1)': "per_sample|True or False",
    'MixUp(generator=42)': "torch.Generator().manual_seed(42)",
    'MixUp(p=50)': "p|[0, 1]|50|0.5",
    'MixUp(p="half")': "p|[0, 1]|half",
    'MixUp(start=.8, end=.2)': "start <= end",
    'MixUp(end=5)': "end|[0, 1]|5",
    'MixUp(inputs=.5)': "inputs|indices|keys",
    'MixUp(inputs=True)': "inputs|indices|keys",
    'MixUp(pair=torch.arange(4))': "pair|(yb, generator)",
    'CutMix(minmax=.5)': "minmax|(a, b)",
    'CutMix(minmax=(.8,.2))': "minmax|a <= b",
    'CutMix(length=16)': "length|share",
    'CutMix(length=.5, minmax=(.2,.5))': "length|minmax|one",
    'CutMix(masks="mask")': "masks|indices",
    'CutMix(masks=.5)': "masks|indices",
    'FMix(decay=-3)': "decay|0 or more",
    'FMix(decay="3")': "decay|0 or more",
    'ResizeMix(lo=.9, hi=.1)': "lo <= hi",
    'ResizeMix(lo="a")': "lo <= hi",
    'ManifoldMixUp(layers=nn.Linear)': "class Linear|isinstance",
    'ManifoldMixUp(layers=[nn.Linear])': "class Linear|isinstance",
    'ManifoldMixUp(layers=[])': "at least one layer|None",
    # several mixers
    'MixChoice()': "MixUp(0.2), CutMix()",
    'MixChoice([MixUp(), CutMix()])': "one by one|MixUp(0.2), CutMix()",
    'MixChoice(.5, CutMix())': "mixers|0.5",
    'MixChoice(MixUp(), weights=[1,2])': "1 weights|[1, 2]",
    'MixChoice(MixUp(), CutMix(), weights=.5)': "2 weights|0.5",
    'MixChoice(MixUp(), theirs.CutMix())': "fastai's|learn.cutmix()",
    'MixChoice(MixUp(), OutputMixUp(), per_sample=True)': "mixers of inputs|OutputMixUp",
    'fit(get_learn([MixUp(), CutMix()]))': "one mixer|MixChoice",
    'fit(get_learn([MixUp(), theirs.CutMix()]))': "fastai's|learn.mixup()",
    'fit(get_learn([MixUp(), Second()]))': "one mixer|MixChoice",
    # a mixer where a function, a transform or another object is wanted
    'MixUp()(x, y)': "mixup_batch(x, y)|learn.mixup()",
    'CutMix()(x)': "cutmix_batch(x, y)|learn.cutmix()",
    'first_batch(item_tfms=MixUp())': "learn.mixup()|cbs",
    'first_batch(batch_tfms=[CutMix()])': "learn.cutmix()|cbs",
    'collate(MixUp())': "learn.mixup()|cbs",
    'fit(get_learn(loss_func=MixUp()))': "learn.mixup()|cbs",
    'nn.Sequential(model, MixUp())': "MixUp|Module",
    'learn.mix(theirs.MixUp())': "fastai's|learn.mixup()",
    'learn.mix("MixUp")': "MixUp()",
    'learn.mix(None)': "MixUp()",
    'PlainLoop(MixUp, model, ce)': "MixUp()",
    'PlainLoop(theirs.MixUp(), model, ce)': "fastai's",
    'learn.show_mixed_batch()': "learn.mixup()",
    'learn.show_mixed_batch(theirs.MixUp())': "fastai's",
    'learn.show_mixed_batch(.4)': "MixUp()",
    # data and models
    'fit(get_learn(MixUp(inputs="imge"), dls=loader(dict(image=x), y)))': "inputs|'imge'|['image']",
    'fit(get_learn(MixUp(inputs=3)))': "inputs|3",
    'fit(get_learn(CutMix(masks=0)))': "mask 0|(6, 6)",
    'fit(get_learn(CutMix(masks=2)))': "mask 2|1 target",
    'fit(get_learn(ManifoldMixUp(layers="layer9")))': "layer9|layers",
    'fit(get_learn(ManifoldMixUp(layers=2)))': "layers",
    'fit(get_learn(ManifoldMixUp(layers=nn.Linear(1,1))))': "layers|Linear",
    'fit(get_learn(MixUp(stack_x=True)))': "stack_x=True|StackedModel",
    'fit(get_learn(MixUp(pair=lambda yb,g: torch.zeros(4).long())))': "pair|each index",
    'fit(get_learn(NoMix()))': "NoMix|mix(x, b)",
    'fit(get_learn(MixUp(per_sample=True), loss_func=own_loss))': "per_sample=True|own_loss|per_sample=False",
    'fit(get_learn(MixUp(stack_y=False), loss_func=nn.NLLLoss()))': "stack_y=False|NLLLoss",
    'fit(get_learn(MixUp(), dls=loader(x)))': "targets",
    'fit(get_learn(MixUp(), dls=loader(x, "abcdefghijkl")))': "targets|str",
    'fit(get_learn(MixUp(), dls=bare_loader(x)))': "targets",
    'fit(get_learn(MixUp(), dls=loader(x, y.view(4,3).repeat(3,1).tolist())))': "targets",
    'fit(get_learn(MixUp(), dls=loader(x.mul(50).byte(), y)))': "uint8|IntToFloatTensor",
    'fit(get_learn(MixUp(), dls=loader(dict(image=x,labels=y), y)))': "'labels'|targets",
    'fit(get_learn(CutMix(), dls=loader(x.flatten(1)[:,:4], y), model=nn.Linear(4,3)))': "(B,C,S1,...,SD)|dims",
    'fit(get_learn(CutMix(), kind="tokens"))': "MixUp|indices",
    'fit(get_learn(OutputMixUp(), **one_output()))': "integer|MixUp",
    'fit(get_learn(MixUp(), dls=loader(x, [TensorBBox(torch.zeros(1,4))]*12)))': "TensorBBox|stack_x=True",
    'fit(get_learn(MixUp(), metrics=fm.MixAccuracy(), **one_output()))': "MixAccuracy|classes",
    # functions for loops of one's own
    'fm.mixup_batch(x.tolist(), y)': "Tensor|list",
    'fm.mixup_batch(x.mul(50).byte(), y)': "uint8|x.float()",
    'fm.mixup_batch(x, y[:3])': "targets|3|12",
    'fm.mixup_batch(x, y, lam=2)': "lam|[0, 1]|2",
    'fm.mixup_batch(x, y, "0.4")': "alpha|number",
    'fm.mixup_batch(x, y, perm=[0,1])': "perm|12",
    'fm.mixup_batch(x, [*"abcdefghijkl"])': "y|Tensor|list",
    'fm.cutmix_batch(x.flatten(1), y)': "(B,C,S1,...,SD)|dims",
    'fm.cutmix_batch(x, y, dims="time")': "dims|int|'time'",
    'fm.cutmix_batch(x, y, dims=0)': "dims|1 to 3",
    'fm.cutmix_batch(x, y, dims=7)': "dims|1 to 3",
    'fm.cutmix_batch(x, y, lam=.5, length=.5)': "lam|boxes",
    'fm.cutmix_batch(x, y, minmax=.5)': "minmax|(a, b)",
    'fm.mix_targets(y, y, .5)': "num_classes",
    'fm.draw_perm(0)': "at least 1",
    'fm.perm_within(x)': "groups|integers",
    'fm.draw_lam(4, None)': "alpha|number",
    'MixUpLoss(nn.CrossEntropyLoss)': "CrossEntropyLoss()",
    'MixUpLoss("ce")': "loss function|'ce'",
    'MixUpLoss(ce)(model(x), y, y, torch.ones(12))': "yb1=y1, lam=lam",
    'MixUpLoss(ce)(model(x), y, yb1=y)': "yb1 and lam",
    'MixUpLoss(own_loss)(model(x), y, yb1=y.flip(0), lam=torch.ones(12))': "one lambda|own_loss",
    'MixUpLoss(nn.MSELoss())(model(x)[:,:1], y.float(), yb1=y.float().flip(0), lam=.5)': "entry by entry|(12, 1)|(12,)",
    'StackedModel(model, model)(x, x)': "1 inputs|3",
    # comparisons
    'fm.compare(learn)': "function|seed",
    'compare(get_learner=lambda: 0)': "one argument, the seed",
    'compare(get_learner=lambda seed: None)': "return a Learner",
    'compare(mixes=[MixUp()])': "mixes|dict",
    'compare(mixes=dict(a=MixUp))': "MixUp()",
    'compare(metrics="accuracy")': "metrics|without quotes",
    'compare(fit="fit_onecycle")': "fit_one_cycle",
    'compare(n_epoch=0)': "n_epoch|at least 1",
    'compare(lr="1e-2")': "lr=1e-2",
    'compare(seeds=[1,1])': "seeds|differ",
    'compare(out=".")': "folder|runs.jsonl",
}

def message(code, learn):
    "What is said to `code`, without the line that fastai puts before it"
    with pytest.raises(Exception) as e: eval(code, globals(), dict(learn=learn))
    return re.sub(r'^(Exception occured in `\w+` when calling event `\w+`:\s*)+', '', str(e.value))

def untold(said, words): return [o for o in words.split('|') if o not in said]

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('code', table)
def test_mistake(code):
    "It is refused in few words, the right ones, and the Learner trains afterwards, with a mixer and without"
    learn = get_learn()
    said = message(code, learn)
    assert not untold(said, table[code]) and len(said)<400, said
    assert fit(learn).recorder.losses and learn.mixer is None
    assert fit(learn.mixup()).mixer.lam is not None

@pytest.mark.parametrize('code', [o for o in table if o.startswith('fit(get_learn(')])
def test_same_learner(code):
    "The very Learner that stopped in the middle of a fit trains on with the right mixer, or without any"
    made = []
    def keep(*args, **kw):
        made.append(get_learn(*args, **kw))
        return made[0]
    with pytest.raises(Exception): eval(code, globals() | dict(get_learn=keep))
    learn, = made
    learn.remove_cbs([o for o in learn.cbs if isinstance(o, (Mixer,theirs.MixHandler,Second))])
    learn.dls,learn.model,learn.loss_func,learn.metrics,learn.opt = (o := get_learn()).dls,o.model,o.loss_func,o.metrics,None
    assert fit(learn).recorder.losses
    assert fit(learn.cutmix()).mixer.lam is not None

@pytest.mark.parametrize('code', ['MixUp(0.4)', 'MixUp(np.float32(.4), p=np.float64(1), start=np.int64(0), inputs=np.int64(0))', 'MixUp(inputs=[np.int32(0)])',
    'CutMix(np.int64(1), minmax=(np.float32(.25), np.float64(.5)))', 'CutMix(length=np.float32(.5))', 'FMix(decay=np.float32(3))',
    'ResizeMix(lo=np.float32(.25), hi=np.float64(.5))', 'MixChoice(MixUp(), CutMix(), weights=np.array([1,2]))', 'MixUp(SchedCos(.1, .4))'])
def test_numbers(code):
    "NumPy's scalars are numbers, and print as such"
    mixer = eval(code)
    assert 'np.' not in repr(mixer) and fit(get_learn(mixer)).mixer.lam is not None

@pytest.mark.parametrize('name,owners', _owners.items())
def test_owners(name, owners):
    "A setting that belongs to another mixer is there"
    for o in re.findall(r'\w+Mix\w*|MixUp|MixChoice', owners): assert name in inspect.signature(getattr(fm, o)).parameters

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('library', ['vision','text'])
def test_shadowed(library):
    "Where fastai's names have come after ours, the Learner's methods still are ours, and replace fastai's mixer"
    ns = dict(get_learn=get_learn)
    exec(f'from fastmix.all import *\nfrom fastai.{library}.all import *', ns)
    assert ns['MixUp'] is theirs.MixUp and ns['CutMix'] is theirs.CutMix
    for code,cls in {'mixup()':MixUp, 'cutmix()':CutMix, 'mix(ManifoldMixUp())':ManifoldMixUp, 'fmix()':FMix}.items():
        learn = eval(f'get_learn(MixUp()).{code}', ns)
        assert type(learn.mixer) is cls and learn.cbs.filter(lambda o: isinstance(o, theirs.MixHandler))==[]
        assert fit(learn).mixer.lam is not None
    with pytest.raises(TypeError, match="fastai's MixUp: import fastmix.all after fastai"): eval('get_learn().mix(MixUp())', ns)

@pytest.mark.parametrize('name', ['MixUp','CutMix'])
def test_named_apart(name):
    "Where both print, each can be told"
    ours,other = getattr(fm, name)(),getattr(theirs, name)()
    assert (repr(ours), repr(other)) == (f'{name}(alpha={ours.alpha})',name)
    assert what([ours,other]) == f"{name}(alpha={ours.alpha}), fastai's {name}(alpha={other.distrib.concentration0.item():.4g})"

def test_enough(): assert len(table)>=60

if __name__=='__main__':
    warnings.simplefilter('ignore')
    for code,words in table.items():
        try: said = message(code, get_learn())
        except BaseException as e: said = f'NOT REFUSED {e}'
        bad = untold(said, words)
        if bad or len(said)>=400 or '-v' in sys.argv: print(f"{'!!' if bad or len(said)>=400 else '  '} {code}\n      ({len(said)}): {said[:450]}" + (f'\n      missing {bad}' if bad else ''))

"Pictures of mixed batches hold what was mixed, and showing them changes nothing"
import os, re, subprocess, sys
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt, numpy as np, pandas as pd, pytest, torch
from torch import nn, tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, TensorDataset
from fastai.tabular.all import Categorify, Normalize, TabularDataLoaders
from fastai.text.all import TextDataLoaders
from fastai.vision.all import CategoryBlock, DataBlock, DataLoaders, ImageBlock, Learner, MaskBlock, PILImage, PILMask, PointBlock
from fastai.vision.all import imagenet_stats, set_seed, Normalize as NormalizeImages
from fastmix.all import CutMix, FMix, ManifoldMixUp, MixChoice, MixUp, OutputMixUp, ResizeMix
from fastmix.paste import box_mask
from fastmix.pictures import mix_once
from fastmix.show import plot_lam, show_mixed_batch

@pytest.fixture(autouse=True)
def close():
    set_seed(0)
    yield
    plt.close('all')

def picture(i): return np.random.default_rng(i).integers(0, 256, (24,24,3), dtype=np.uint8)

@pytest.fixture(scope='module')
def dls():
    "Images with class names, normalised"
    block = DataBlock((ImageBlock,CategoryBlock), get_x=lambda i: PILImage.create(picture(i)), get_y=lambda i: ('dog','cat','cow')[i%3],
        batch_tfms=NormalizeImages.from_stats(*imagenet_stats))
    return block.dataloaders(range(40), bs=16, num_workers=0)

def net(): return nn.Sequential(nn.Conv2d(3,8,3,2), nn.BatchNorm2d(8), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8,3))

def shown(make, base, **kwargs):
    "Axes for the mixer that `make` makes, the mixed batch (known, since both have the same seed), and the plain one"
    b = next(iter(getattr(base, 'dls', base).train))
    seeded = lambda: make(torch.Generator().manual_seed(0))
    did = mix_once(base, seeded(), b)
    return show_mixed_batch(base, seeded(), b=b, **kwargs),did,b

def rgb(ax, i=0): return torch.as_tensor(np.array(ax.images[i].get_array())).permute(2,0,1)
def title(did, i, names):
    a,j = round(100*did.lam.expand(len(did.perm))[i].item()),did.perm[i]
    return f'{a} % {names[i]} + {100-a} % {names[j]}'

def test_image_mixup(dls):
    axs,did,b = shown(lambda g: MixUp(1., generator=g), dls)
    plain = dls.decode(b)[0]
    assert len(axs)==9
    for i,ax in enumerate(axs):
        l,j = did.lam[i],did.perm[i]
        assert (rgb(ax) - (l*plain[i] + (1-l)*plain[j])).abs().max() <= 1.5
        assert ax.get_title().replace('\n', ' ') == title(did, i, [dls.vocab[o] for o in b[1]])
        assert not ax.patches and not ax.get_figure().get_suptitle()

@pytest.mark.parametrize('cls', [CutMix,ResizeMix])
def test_image_box(dls, cls):
    axs,did,b = shown(lambda g: cls(generator=g), dls, n=16)
    plain,inside = dls.decode(b)[0],box_mask(did.boxes, (24,24))[:,0]
    for i,ax in enumerate(axs):
        got = rgb(ax)
        assert got[:,~inside[i]].equal(plain[i][:,~inside[i]])
        if cls is CutMix: assert got[:,inside[i]].equal(plain[did.perm[i]][:,inside[i]])
        (y0,y1),(x0,x1) = did.boxes[i].tolist()
        edges = [o.get_bbox().extents.tolist() for o in ax.patches]
        assert edges == ([[x0-.5,y0-.5,x1-.5,y1-.5]] if y0<y1 and x0<x1 else [])

def test_image_mask(dls):
    axs,did,_ = shown(lambda g: FMix(generator=g), dls, n=4)
    for i,ax in enumerate(axs): assert bool(ax.collections) == (0<did.lam[i]<1)

def test_one_lam(dls):
    "A single box is drawn into every sample"
    axs,did,_ = shown(lambda g: CutMix(length=0.5, per_sample=False, generator=g), dls, n=4)
    assert len(did.boxes)==1 and len({str(o.patches[0].get_bbox()) for o in axs})==1

def test_later(dls):
    "What is mixed inside of the model is shown in pairs, and the layer is named"
    learn = Learner(dls, net())
    for make in (lambda g: ManifoldMixUp(mix_input=False, generator=g), lambda g: OutputMixUp(generator=g),
        lambda g: MixUp(stack_x=True, generator=g)):
        axs,did,b = shown(make, dls if make(None).stack_x else learn, n=5) # this net takes one input
        plain,names = dls.decode(b)[0],[dls.vocab[o] for o in b[1]]
        assert len(axs)==10
        for i in range(5):
            own,other = axs[2*i:2*i+2]
            assert rgb(own).equal(plain[i]) and rgb(other).equal(plain[did.perm[i]])
            assert f'{own.get_title()} {other.get_title()}' == title(did, i, names)
        head = axs[0].get_figure().get_suptitle()
        name = type(make(None)).__name__
        assert head.startswith(name) and head.endswith(f' at {did.layer}' if name=='ManifoldMixUp' else ')')

def test_choice(dls):
    axs,did,_ = shown(lambda g: MixChoice(MixUp(generator=g), CutMix(generator=g), weights=(0,1)), dls, n=4)
    assert axs[0].get_figure().get_suptitle().startswith('CutMix(alpha=1.0') and any(o.patches for o in axs)
    m = MixChoice(MixUp(), CutMix(length=0.5), per_sample=True)
    mixers = [*m.mixers]
    axs = show_mixed_batch(dls, m, n=16)
    assert 0<sum(bool(o.patches) for o in axs)<16 and not axs[0].get_figure().get_suptitle()
    assert all(a is b for a,b in zip(m.mixers, mixers)) and m.learn is None and all(o.perm is None for o in (m,*mixers))

def test_masks():
    block = DataBlock((ImageBlock,MaskBlock(['a','b'])), get_x=lambda i: PILImage.create(picture(i)),
        get_y=lambda i: PILMask.create((picture(i)[...,0]>128).astype(np.uint8)))
    dls = block.dataloaders(range(20), bs=8, num_workers=0)
    axs,did,b = shown(lambda g: CutMix(length=0.5, generator=g), dls, n=4)
    for i,ax in enumerate(axs):
        image,mask = ax.images
        assert np.array_equal(mask.get_array(), did.yb[0][i]) and not np.array_equal(mask.get_array(), b[1][i].numpy())
        assert re.fullmatch(r'\d+ % \+ \d+ %', ax.get_title())
    axs,did,b = shown(lambda g: MixUp(1., generator=g), dls, n=4)
    for i,ax in enumerate(axs):
        for im,j,share in zip(ax.images[1:], (i,did.perm[i]), (did.lam[i],1-did.lam[i])):
            assert np.array_equal(im.get_array(), b[1][j].numpy())
            assert im.get_alpha() == pytest.approx(0.6*share.item())
        assert len(ax.images)==3

@pytest.mark.parametrize('loss,mixes', ((nn.MSELoss(),True),(nn.CTCLoss(),False)))
def test_points(loss, mixes):
    "Points of the sample, of its partner, and what is trained on if they are interpolated, in pixels"
    places = torch.rand(20,2,2)*23
    block = DataBlock((ImageBlock,PointBlock), get_x=lambda i: PILImage.create(picture(i)), get_y=lambda i: places[i])
    dls = block.dataloaders(range(20), bs=8, num_workers=0)
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(3*24*24,4)), loss_func=loss)
    axs,did,b = shown(lambda g: MixUp(1., generator=g, per_sample=None if mixes else False), learn, n=4)
    at = (b[1]+1)*12
    for i,ax in enumerate(axs):
        got = [torch.as_tensor(np.array(o.get_xydata())).float() for o in ax.lines]
        l,j = did.lam.expand(8)[i],did.perm[i]
        want = [at[i],at[j]] + [l*at[i]+(1-l)*at[j]]*mixes
        assert len(got)==len(want)
        for a,c in zip(got,want): torch.testing.assert_close(a, torch.as_tensor(c).as_subclass(torch.Tensor), atol=1e-3, rtol=1e-4)
        assert ax.lines[1].get_alpha()==pytest.approx(1-l.item())
    for ax in show_mixed_batch(dls, MixUp(stack_x=True), n=2): assert len(ax.lines)==1 # a sample or its partner

def test_text_of_tables_stays_in_its_cells():
    long = {f'a long name of a column {i}':torch.randn(16).tolist() for i in range(3)} | {f'k{i}':(1e6*torch.randn(16)).tolist() for i in range(3)}
    df = pd.DataFrame(long | dict(kind=['some category']*16, y=list('ab'*8)))
    dls = TabularDataLoaders.from_df(df, cat_names=['kind'], cont_names=[*long], y_names='y', procs=[Categorify,Normalize], bs=8)
    axs = show_mixed_batch(dls, MixUp(1.), n=4)
    fig = axs[0].get_figure()
    fig.canvas.draw()
    for ax in axs:
        for cell in ax.tables[0].get_celld().values():
            text,box = cell.get_text().get_window_extent(),cell.get_window_extent()
            assert text.width<=box.width+1, (cell.get_text().get_text(),text.width,box.width)

def test_signals():
    ds = list(zip(torch.randn(16,1,30), torch.arange(16)%2))
    dls = DataLoaders.from_dsets(ds, ds, bs=8, num_workers=0, device='cpu')
    dls.vocab = ['slow','fast']
    axs,did,b = shown(lambda g: MixUp(1., generator=g), dls, n=3)
    for i,ax in enumerate(axs):
        assert [o.get_ydata().tolist() for o in ax.lines] == [o.tolist() for o in (b[0][i,0],b[0][did.perm[i],0],did.xb[0][i,0])]
        assert ax.get_title() == title(did, i, [dls.vocab[o] for o in b[1]])
    axs,did,_ = shown(lambda g: CutMix(length=0.5, generator=g), dls, n=3)
    for i,ax in enumerate(axs): assert ax.patches[0].get_x() == did.boxes[i,0,0]-.5

def test_tables():
    df = pd.DataFrame(dict(kind=['a','b','c','d']*10, size=np.random.default_rng(0).normal(5, 3, 40), y=np.arange(40.)))
    dls = TabularDataLoaders.from_df(df, cat_names=['kind'], cont_names=['size'], y_names='y', procs=[Categorify,Normalize], bs=16)
    axs,did,b = shown(lambda g: MixUp(generator=g), dls, n=4)
    own,other,mixed = (dls.train.decode(o).decode().items for o in (b, tuple(o[did.perm] for o in b), (*did.xb,b[2])))
    for i,ax in enumerate(axs):
        cells = {k: o.get_text().get_text() for k,o in ax.tables[0].get_celld().items()}
        assert [cells[0,c] for c in range(4)] == ['','own','partner','mixed']
        assert [cells[2,c] for c in range(4)] == ['kind',own['kind'].iloc[i],other['kind'].iloc[i],'']
        assert [cells[1,c] for c in range(4)] == ['size']+[f"{o['size'].iloc[i]:.4g}" for o in (own,other,mixed)]
        assert ax.get_title() == title(did, i, [f"of {o:.4g}" for o in own['y']])

def test_texts():
    rows = [(f'the number {i} comes after {i-1}', 'odd' if i%2 else 'even') for i in range(40)]
    df = pd.DataFrame(rows, columns=['text','label'])
    dls = TextDataLoaders.from_df(df, text_col='text', label_col='label', bs=8, seq_len=16, n_workers=0, num_workers=0)
    axs,did,b = shown(lambda g: MixUp(generator=g), dls, n=4)
    def words(i): return [dls.vocab[0][o] for o in b[0][i] if dls.vocab[0][o]!='xxpad']
    for i in range(4):
        for ax,j in zip(axs[2*i:2*i+2], (i,did.perm[i])): assert ax.texts[0].get_text().split() == ' '.join(words(j)).split()
        assert ' '.join(o.get_title('left') for o in axs[2*i:2*i+2]) == title(did, i, [dls.vocab[1][o] for o in b[1]])

def test_plain_loader():
    "PyTorch's own loaders, several inputs, of which one is mixed, and one-hot targets"
    data = DataLoader(TensorDataset(torch.rand(8,1,6,6), torch.rand(8,1,6,6), torch.eye(8)), batch_size=8)
    axs = show_mixed_batch(DataLoaders(data, data), MixUp(inputs=1), n=2)
    assert [bool(o.get_title()) for o in axs] == [False,True]*2
    assert np.array_equal(axs[0].images[0].get_array(), data.dataset.tensors[0][0,0])
    assert re.fullmatch(r'\d+ % 0 \+ \d+ % [1-7]', axs[1].get_title())

def test_dict():
    "Inputs in a dict, which fastai does not decode, from PyTorch's loaders and from its own"
    ds = [(dict(a=torch.rand(1,6,6), b=torch.rand(3)),tensor(i)) for i in range(8)]
    for dls in (DataLoaders(*[DataLoader(ds, batch_size=8)]*2), DataLoaders.from_dsets(ds, ds, bs=8, num_workers=0, device='cpu')):
        axs,did,b = shown(lambda g: MixUp(generator=g), dls, n=2)
        assert len(axs)==4 and torch.equal(torch.as_tensor(np.array(axs[2].images[0].get_array())), did.xb[0]['a'][1,0])
        assert axs[0].get_title() == title(did, 0, b[1].tolist())

@pytest.mark.parametrize('shape', [(2,6,6), (5,6,6), (1,4,6,6), (7,), ()])
def test_shapes(shape):
    ds = [(torch.randn(shape),tensor(i)) for i in range(8)]
    assert len(show_mixed_batch(DataLoaders.from_dsets(ds, ds, bs=4, num_workers=0, device='cpu'), MixUp(), n=9))==4

# The shape of a sample and of its mask, the class of the mixer and its dims
UNUSUAL = {'features': ((12,5), (12,), FMix, (1,)), 'frequencies': ((1,12,8), None, FMix, (2,)), 'times': ((1,12,8), None, FMix, (3,)),
    'channels last': ((8,10,3), (8,10), CutMix, (1,2)), 'channels last by a mask': ((8,10,3), (8,10), FMix, (1,2)),
    'heat maps': ((3,8,8), (5,8,8), CutMix, None), 'a heat map': ((3,8,8), (1,8,8), CutMix, None),
    'mask of a clip': ((3,6,8,8), (6,8,8), CutMix, (3,4)), 'scores of a clip': ((3,6,8,8), (4,6,8,8), CutMix, (3,4)),
    'one mask for a clip': ((6,3,8,8), (8,8), FMix, (3,4)), 'tube': ((3,6,8,8), (6,8,8), FMix, (2,3,4)),
    'mask of a volume': ((1,6,8,8), (6,8,8), CutMix, None), 'scores of a volume': ((1,6,8,8), (4,6,8,8), CutMix, None)}
@pytest.mark.parametrize('kind', UNUSUAL)
@pytest.mark.parametrize('dtype', (torch.float32,torch.int64))
def test_unusual_layouts_and_masks(kind, dtype):
    shape,target,cls,dims = UNUSUAL[kind]
    ds = [(torch.rand(shape),torch.randint(0, 2, target).to(dtype) if target else tensor(i)) for i in range(8)]
    dls = DataLoaders.from_dsets(ds, ds, bs=4, num_workers=0, device='cpu')
    axs,did,_ = shown(lambda g: cls(dims=dims, generator=g), dls, n=4)
    assert len(axs)==4
    axs[0].figure.canvas.draw()
    if kind.startswith('channels last'):
        for i,ax in enumerate(axs): assert np.allclose(ax.images[0].get_array(), did.xb[0][i]) and np.array_equal(ax.images[1].get_array(), did.yb[0][i])
    if kind=='scores of a volume' and dtype is torch.int64:
        for i,ax in enumerate(axs): assert np.array_equal(ax.images[1].get_array(), did.yb[0][i].argmax(0)[3])

def test_complex_inputs():
    ds = [(torch.randn(1,8,8, dtype=torch.complex64),tensor(i)) for i in range(8)]
    axs,did,_ = shown(lambda g: MixUp(generator=g), DataLoaders.from_dsets(ds, ds, bs=4, num_workers=0, device='cpu'), n=2)
    assert np.allclose(axs[0].images[0].get_array(), did.xb[0][0,0].abs())

def test_nothing_changes(dls):
    "Neither what is there to see nor what training makes of it"
    def trained(show):
        set_seed(0)
        dls.rng.seed(0)
        learn = Learner(dls, net()).manifold_mixup()
        with learn.no_bar(),learn.no_logging():
            learn.fit(1, 1e-2)
            if show:
                before = {**vars(learn)},{**vars(learn.manifold_mix_up)},{**vars(dls)}
                learn.show_mixed_batch()
                learn.show_mixed_batch(CutMix(), n=1)
                assert (vars(learn),vars(learn.manifold_mix_up),vars(dls)) == before
                assert not any(m._forward_hooks or m._forward_pre_hooks for m in learn.model.modules())
            set_seed(1)
            dls.rng.seed(1)
            learn.fit(1, 1e-2)
        return learn.model.state_dict()
    a,b = trained(True),trained(False)
    assert all(a[k].equal(b[k]) for k in a)

def test_plot_lam():
    "Shares of samples, as NumPy would draw them"
    ax = plt.figure().subplots()
    assert plot_lam((0.4,4.), ax=ax) is ax
    for o,a in zip(ax.patches, (0.4,4.)):
        t = np.random.default_rng(0).beta(a, a, 100_000)
        assert abs(o.get_data().values - 100*np.histogram(np.maximum(t, 1-t), 25, (.5,1))[0]/1e5).max() < 0.5
    assert [o.get_text() for o in ax.get_legend().texts] == ['alpha=0.4, mean 0.84','alpha=4, mean 0.64']

def test_script(tmp_path):
    "Without a display"
    code = '''import warnings, torch
warnings.filterwarnings('ignore')
from fastai.vision.all import *
from fastmix.all import *
from fastmix.show import show_mixed_batch
ds = list(zip(torch.rand(8,3,8,8), torch.arange(8)))
axs = show_mixed_batch(DataLoaders.from_dsets(ds, ds, bs=8, num_workers=0, device='cpu'), CutMix())
axs[0].get_figure().savefig('mixed.png')'''
    env = {k:v for k,v in os.environ.items() if k not in ('DISPLAY','WAYLAND_DISPLAY','MPLBACKEND')}
    subprocess.run([sys.executable, '-c', code], check=True, cwd=tmp_path, env=env)
    assert (tmp_path/'mixed.png').stat().st_size > 1000

# Targets of any structure

class Plain(list):
    "Batches that no `show_batch` decodes"
    dataset = None

def loader(xs, ys):
    dls = DataLoaders(*[Plain([(*xs,*ys)])]*2)
    dls.n_inp = len(xs)
    return dls

Y,Z = tensor([2,0,1,2]),tensor([31.,45.,60.,22.])
STRUCTURES = dict(dict=({'cls':Y,'age':Z},), nested=((Y,Z),), deep=((Y,{'age':Z}),), two=(Y,Z), none=(Y,None,Z))
XS = dict(image=torch.rand(4,3,8,8), clip=torch.rand(4,6,3,8,8), signal=torch.rand(4,1,30), volume=torch.rand(4,1,4,8,8), text=torch.randint(9,(4,7)), table=torch.rand(4,5))

HOWS = [(k,how,False,False) for k in XS for how in STRUCTURES]
HOWS += [(k,how,*o) for k in ('image','text') for how in STRUCTURES if how!='none' for o in ((False,True),(True,False),(True,True))] # none are not collated

@pytest.mark.parametrize('kind,how,keyed,decodes', HOWS)
@pytest.mark.filterwarnings('ignore')
def test_titles_hold_the_targets_of_any_structure(kind, how, keyed, decodes):
    xs = ({'x':XS[kind]},) if keyed else (XS[kind],)
    if decodes:
        rows = [tree_map(lambda o: o[i], (*xs,*STRUCTURES[how])) for i in range(4)]
        dls = DataLoaders.from_dsets(rows, rows, bs=4, shuffle=False, num_workers=0, device='cpu')
        dls.n_inp = 1
    else: dls = loader(xs, STRUCTURES[how])
    b,make = (*xs,*STRUCTURES[how]),lambda: MixUp(per_sample=False, generator=torch.Generator().manual_seed(0))
    did,axs = mix_once(dls, make(), b),show_mixed_batch(dls, make(), n=2, b=b)
    for i in range(2):
        words = ' '.join(ax.get_title(loc).replace('\n', ' ') for ax in axs[i*len(axs)//2:(i+1)*len(axs)//2] for loc in ('left','center'))
        for k in (i,int(did.perm[i])): assert f'% {Y[k]}; of {Z[k]:.4g}' in words

@pytest.mark.parametrize('ys', (({'mask':Y.view(4,1,1).repeat(1,8,8),'cls':Y},), ((Y,Y.view(4,1,1).repeat(1,8,8)),), (Y,{'mask':Y.view(4,1,1).repeat(1,8,8)})))
def test_masks_in_any_structure_are_drawn_and_not_written(ys):
    dls,b = loader((XS['image'],), ys),(XS['image'],*ys)
    make = lambda: CutMix(length=.5, per_sample=False, generator=torch.Generator().manual_seed(1))
    did,axs = mix_once(dls, make(), b),show_mixed_batch(dls, make(), n=4, b=b)
    inside = box_mask(did.boxes, (8,8))[0,0]
    for i,ax in enumerate(axs):
        assert torch.equal(torch.as_tensor(np.array(ax.images[-1].get_array())), Y[did.perm[i]].where(inside, Y[i]))
        share = round(100*did.lam.item())
        assert ax.get_title().replace('\n',' ')==f'{share} % {Y[i]} + {100-share} % {Y[did.perm[i]]}'

@pytest.mark.parametrize('dims', ((1,),(2,),(3,),(1,2),(2,3),(1,3),(1,2,3)))
@pytest.mark.parametrize('cls', (CutMix,FMix))
def test_what_is_pasted_is_outlined_with_channels_last(cls, dims):
    b = torch.rand(4,8,9,3),Y
    make = lambda: cls(dims=dims, generator=torch.Generator().manual_seed(2))
    did,axs = mix_once(loader(b[:1], b[1:]), make(), b),show_mixed_batch(loader(b[:1], b[1:]), make(), n=4, b=b)
    for i,ax in enumerate(axs):
        edges = [o.get_bbox().extents.tolist() for o in ax.patches]
        if cls is FMix:
            first = torch.stack([torch.stack([did.mask[i,0][tuple((h,w,0)[d-1] for d in dims)] for w in range(9)]) for h in range(8)])
            assert not edges and bool(ax.collections)==(0<first.float().mean()<1)
        else:
            at = {1:(0,8), 2:(0,9)} | dict(zip(dims, did.boxes[i].tolist()))
            (y0,y1),(x0,x1) = at[1],at[2]
            assert edges==([[x0-.5,y0-.5,x1-.5,y1-.5]] if y0<y1 and x0<x1 and dims!=(3,) else [])

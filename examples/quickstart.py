"Half of the training labels are wrong: how much harm do they do, plain and with each mix?"
from fastai.vision.all import *
from fastcore.script import call_parse
from sklearn.datasets import load_digits
from textwrap import fill
from fastmix.all import *

mixes = dict(plain=None, MixUp=MixUp(0.4), CutMix=CutMix(), ManifoldMixUp=ManifoldMixUp(), OutputMixUp=OutputMixUp(0.4))
lines = dict(MixUp='mixup(0.4)', CutMix='cutmix()', ManifoldMixUp='manifold_mixup()', OutputMixUp='output_mixup(0.4)')

def get_dls(seed, wrong):
    "1000 images to train on, the first `wrong` of them with random labels, and 797 others, labelled rightly, to judge by"
    set_seed(seed)
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    x,y = tensor(digits.images/16)[order,None],tensor(digits.target)[order]
    y[:wrong] = torch.randint(10, (wrong,))
    data = list(zip(x,y))
    return DataLoaders.from_dsets(data[:1000], data[1000:], bs=64, val_bs=797, num_workers=0, device='cpu')

def get_learner(seed, wrong):
    convs = ConvLayer(1,16),ConvLayer(16,32,stride=2),ConvLayer(32,64,stride=2)
    net = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64,10))
    return Learner(get_dls(seed, wrong), net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy)

def plot_mixed(path, n=8):
    "The digits below `n`, their partners, and what MixUp and CutMix make of them, with the weight of each label"
    set_seed(2)
    digits = load_digits()
    x,y = tensor(digits.images[:n,None]/16),tensor(digits.target[:n])
    perm = draw_perm(n)
    xm,y1,lam = mixup_batch(x, y, 1., perm=perm)
    xc,y1,cut_lam,boxes = cutmix_batch(x, y, 1., perm=perm)
    def weights(lam): return [f'{l:.0%} "{a}"\n{1-l:.0%} "{b}"' for l,a,b in zip(lam, y, y1)]
    rows = dict(image=(x, y.tolist()), partner=(x[perm], y1.tolist()), MixUp=(xm, weights(lam)), CutMix=(xc, weights(cut_lam)))
    fig,axs = plt.subplots(len(rows), n, figsize=(n,5.4), layout='constrained')
    for axrow,(name,(images,titles)) in zip(axs, rows.items()):
        axrow[0].set_ylabel(name)
        for ax,image,title in zip(axrow, images, titles):
            ax.imshow(image[0], cmap='gray')
            ax.set(title=title, xticks=[], yticks=[])
    for ax,((top,bottom),(left,right)) in zip(axs[-1], boxes):
        ax.add_patch(plt.Rectangle((left-0.5,top-0.5), right-left, bottom-top, fill=False, edgecolor='orange', linewidth=2))
    fig.savefig(path)

def winner(res):
    "Which mix has the highest accuracy, and whether that is more than noise"
    acc,d = 100*res.seeds('accuracy').mean(axis=1),res.diffs[res.diffs.metric=='accuracy'].set_index('mix')
    top = acc.idxmax()
    if top==res.base: return f'No mix helps here: accuracy is {acc[top]:.1f} % without one.'
    says = dict(higher='beyond the noise of the seeds').get(d.verdict[top], d.verdict[top])
    others = ', and better than every other mix' if res.best==top else ''
    return f'Highest accuracy: {top} with {acc[top]:.1f} %, against {acc[res.base]:.1f} % without a mix ({says}{others}).\nTo train with it: learn.{lines[top]}'

@call_parse
def main(
    epochs:int=16, # Length of each run
    seeds:int=5, # Runs of each mix, each with another split, other wrong labels and other initial weights
    wrong:int=500, # How many of the 1000 training labels are replaced by random ones
    out:Path=Path('quickstart') # Folder for the two pictures
):
    "Train on handwritten digits, half of them labelled wrongly, plain and with each mix. Prints a table and draws two pictures"
    if min(epochs, seeds)<1 or not 0<=wrong<=1000: sys.exit('Expected at least 1 epoch and 1 seed, and from 0 to 1000 wrong labels')
    torch.set_num_threads(1) # more make so small a network no faster
    plt.switch_backend('agg') # draw into files, with or without a screen
    out.mkdir(parents=True, exist_ok=True)
    plot_mixed(out/'mixed.png')
    res = compare(partial(get_learner, wrong=wrong), mixes, epochs, 5e-3, seeds)
    title,acc = f'{wrong} of 1000 training labels are random, {seeds} seeds',100*res.seeds('accuracy')
    ax = res.plot('accuracy')
    ax.set(title=title, ylabel='accuracy on 797 other images', ylim=(acc.min(axis=None)/100-0.15,1))
    ax.figure.savefig(out/'accuracy.png')
    cols = {'accuracy (%)':acc.mean(axis=1), 'lowest':acc.min(axis=1), 'highest':acc.max(axis=1),
        'seconds':res.seeds('seconds').mean(axis=1)}
    table = pd.DataFrame(cols).rename_axis(None)
    says = '\n'.join(fill(o, 100, subsequent_indent='    ') for o in res.verdict.splitlines())
    print(f"\n{winner(res)}\n\n{title}\n\n{table.to_string(float_format='%.1f')}\n\n{says}\n\nPictures: {out/'mixed.png'}, {out/'accuracy.png'}")

"Half of the training labels are wrong: how much harm do they do, plain and with each mix?"
from fastai.vision.all import *
from fastcore.script import call_parse
from sklearn.datasets import load_digits
from fastmix.all import *

mixes = dict(plain=None, MixUp=MixUp(1.), CutMix=CutMix(1.), ManifoldMixUp=ManifoldMixUp(1.), OutputMixUp=OutputMixUp(1.))

def get_dls(seed, wrong):
    "1000 images to train on, the first `wrong` of them with random labels, and 797 others, labelled rightly, to judge by"
    set_seed(seed)
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    x,y = tensor(digits.images/16)[order,None],tensor(digits.target)[order]
    y[:wrong] = torch.randint(10, (wrong,))
    data = list(zip(x,y))
    return DataLoaders.from_dsets(data[:1000], data[1000:], bs=64, num_workers=0, device='cpu')

def small_net():
    convs = ConvLayer(1,16),ConvLayer(16,32,stride=2),ConvLayer(32,64,stride=2)
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64,10))

def train(mix, epochs, seed, wrong):
    "Accuracy (%) after each epoch, and the seconds it took"
    learn = Learner(get_dls(seed, wrong), small_net(), loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=mix)
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(epochs, 5e-3)
    return [100*acc for *_,acc in learn.recorder.values],time.perf_counter()-start

def plot_mixed(path, n=8):
    "The digits below `n`, their partners, and what MixUp and CutMix make of them, with the share of each label"
    set_seed(2)
    digits = load_digits()
    x,y = tensor(digits.images[:n,None]/16),tensor(digits.target[:n])
    perm = draw_perm(n)
    xm,y1,lam = mixup_batch(x, y, 1., perm=perm)
    xc,y1,cut_lam,boxes = cutmix_batch(x, y, 1., perm=perm)
    def shares(lam): return [f'{l:.0%} "{a}"\n{1-l:.0%} "{b}"' for l,a,b in zip(lam, y, y1)]
    rows = dict(image=(x, y.tolist()), partner=(x[perm], y1.tolist()), MixUp=(xm, shares(lam)), CutMix=(xc, shares(cut_lam)))
    fig,axs = plt.subplots(len(rows), n, figsize=(n,5.4), layout='constrained')
    for axrow,(name,(images,titles)) in zip(axs, rows.items()):
        axrow[0].set_ylabel(name)
        for ax,image,title in zip(axrow, images, titles):
            ax.imshow(image[0], cmap='gray')
            ax.set(title=title, xticks=[], yticks=[])
    for ax,((top,bottom),(left,right)) in zip(axs[-1], boxes):
        ax.add_patch(plt.Rectangle((left-0.5,top-0.5), right-left, bottom-top, fill=False, edgecolor='orange', linewidth=2))
    fig.savefig(path)

def plot_accuracy(accs, title, path):
    "Accuracy by epoch: the mean over all seeds, in a band from the lowest to the highest"
    fig,ax = plt.subplots(figsize=(7,4), layout='constrained')
    for name,acc in accs.items():
        epoch = range(1, acc.shape[1]+1)
        ax.plot(epoch, acc.mean(0), label=name)
        ax.fill_between(epoch, acc.min(0), acc.max(0), alpha=0.15)
    ax.xaxis.get_major_locator().set_params(integer=True)
    lowest = min(acc[:,-1].min() for acc in accs.values())
    ax.set(title=title, xlabel='epoch', ylabel='accuracy (%)', ylim=(lowest-15,100))
    ax.legend()
    fig.savefig(path)

@call_parse
def main(
    epochs:int=16, # Length of each run
    seeds:int=3, # Runs of each mix, each with another split, other wrong labels and other initial weights
    wrong:int=500, # How many of the 1000 training labels are replaced by random ones
    out:Path=Path('quickstart') # Folder for the two pictures
):
    "Train on handwritten digits, half of them labelled wrongly, plain and with each mix. Prints a table and draws two pictures"
    if min(epochs, seeds)<1 or not 0<=wrong<=1000: sys.exit('Expected at least 1 epoch and 1 seed, and from 0 to 1000 wrong labels')
    torch.set_num_threads(1) # more make so small a network no faster
    plt.switch_backend('agg') # draw into files, with or without a screen
    out.mkdir(parents=True, exist_ok=True)
    plot_mixed(out/'mixed.png')
    accs,secs = ({name:[] for name in mixes} for _ in range(2))
    runs = [(name,seed) for seed in range(seeds) for name in mixes]
    for name,seed in (bar := progress_bar(runs, leave=False)):
        acc,sec = train(mixes[name], epochs, seed, wrong)
        accs[name].append(acc)
        secs[name].append(sec)
        bar.comment = f'{name}: {acc[-1]:.1f} %'
    accs = {name:array(acc) for name,acc in accs.items()}
    title = f'{wrong} of 1000 training labels are random, {seeds} seeds'
    plot_accuracy(accs, title, out/'accuracy.png')
    last = {name:acc[:,-1] for name,acc in accs.items()}
    rows = {name:[o.mean(), o.min(), o.max(), np.mean(secs[name])] for name,o in last.items()}
    table = pd.DataFrame(rows, index=['accuracy (%)','lowest','highest','seconds']).T
    print(f"{title}\n\n{table.to_string(float_format='%.1f')}\n\nPictures: {out/'mixed.png'}, {out/'accuracy.png'}")

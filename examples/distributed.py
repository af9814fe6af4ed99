"""Train with a mixer on a CPU, one GPU, several GPUs or several machines, with one script

    python examples/distributed.py                                        # one process
    torchrun --nproc-per-node 4 examples/distributed.py                   # 4 GPUs
    accelerate launch --multi_gpu --num_processes 4 examples/distributed.py
"""
from contextlib import nullcontext
from fastai.vision.all import *
from fastai.distributed import *
from fastcore.script import call_parse
from sklearn.datasets import load_digits
from fastmix.all import *

def get_dls(bs):
    "1000 digits for training, 797 others for validation"
    digits = load_digits()
    data = list(zip(tensor(digits.images/16)[:,None], tensor(digits.target)))
    return DataLoaders.from_dsets(data[:1000], data[1000:], bs=bs, num_workers=0, device=default_device())

def small_net():
    convs = ConvLayer(1,16),ConvLayer(16,32,stride=2),ConvLayer(32,64,stride=2)
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64,10))

@call_parse
def main(
    mix:str='CutMix', # MixUp, CutMix, ManifoldMixUp, OutputMixUp, or plain
    alpha:float=1., # The mixer's `alpha`
    epochs:int=5, # Number of epochs
    bs:int=64, # Batch size of each process
    lr:float=5e-3, # Maximum learning rate
    seed:int=None # Repeats a run on the same number of processes; all ranks may use the same seed, they draw different mixes
):
    "Train a small network on handwritten digits, on as many GPUs as there are processes"
    mixes = dict(MixUp=MixUp, CutMix=CutMix, ManifoldMixUp=ManifoldMixUp, OutputMixUp=OutputMixUp)
    if mix not in (*mixes, 'plain'): sys.exit(f"Expected one of {', '.join(mixes)} or plain, but got {mix}")
    if torch.cuda.is_available(): torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
    if seed is not None: set_seed(seed, reproducible=True)
    learn = Learner(get_dls(bs), small_net(), loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
    if mix!='plain': learn.mix(mixes[mix](alpha))
    context = learn.distrib_ctx(sync_bn=torch.cuda.is_available()) if num_distrib()>1 else nullcontext()
    with learn.no_bar(),context: learn.fit_one_cycle(epochs, lr)
    right = learn.recorder.values[-1][-1]
    if not rank_distrib(): print(f'{mix}, {max(1, num_distrib())} process(es): {right:.1%} of the validation digits right')

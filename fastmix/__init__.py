"""MixUp, CutMix, manifold mixup and their kin for fastai and PyTorch, exact in their losses

Modules:

- `fastmix.callback`: Callbacks that mix each training batch, for any task that fastai trains
- `fastmix.draw`: What is random in a mix: who meets whom, how much each keeps, and where the box goes
- `fastmix.loss`: `MixUpLoss`: the exact loss on two sets of targets, for any loss function
- `fastmix.mix`: MixUp and CutMix of a batch as pure functions, for any PyTorch training loop
- `fastmix.mixer`: `Mixer`, the callback that draws for each training batch, mixes it and blends its losses, whatever the task"""

__version__ = "0.1.0"

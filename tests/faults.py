"Faults of other libraries, to be put in by `mutate.py`: each must be noticed by its test in test_regressions.py"

faults = []

def fault(
    wrong, # What is wrong
    module, # Where
    test, # The test that must fail
    code, # Code that stands there once
    faulty # What it is replaced by
): faults.append((wrong,module,test,code,faulty))

fault('a batch of three is a triple', 'loss', 'test_three_are_no_mixed_triple',
    '        if yb1 is None and lam is None: return self.loss_func(pred, *yb)\n', '''
        if yb1 is None and lam is None and len(yb[0])==3: return self.loss_func(pred, yb[0][1].expand_as(yb[0]))
        if yb1 is None and lam is None: return self.loss_func(pred, *yb)
''')
fault('three targets are a triple', 'loss', 'test_three_are_no_mixed_triple',
    '        if yb1 is None and lam is None: return self.loss_func(pred, *yb)\n', '''
        if len(yb)==3: yb,yb1,lam = yb[:1],yb[1],yb[2].mean().clamp(0, 1)
        if yb1 is None and lam is None: return self.loss_func(pred, *yb)
''')
fault('p is applied twice', 'mixer', 'test_p_once', '<self.p\n', '<self.p**2\n')
fault('p is applied again to samples', 'mixer', 'test_p_once', 'x.device, self.rng)\n\n@patch\ndef mix(', '''x.device, self.rng)
    self.lam = self.lam.where(torch.rand(self.n_lam)<self.p, 1)

@patch
def mix(''')
fault('boxes have one relative place', 'draw', 'test_boxes_of_a_batch_differ',
    '_blank(len(sides), len(sides[0]), device=dev, generator=generator)', '_blank(len(sides), 1, device=dev, generator=generator)')
fault('dimensions share their place', 'draw', 'test_boxes_of_a_batch_differ', 'zip(size, sides, us)',
    'zip(size, sides, us[:1].expand_as(us))')
fault('no box inside at the last place', 'draw', 'test_border_is_reached', 'lo = (u*(s+1-side)).floor()', 'lo = (u*(s-side)).floor()')
fault('no centre in the last pixel', 'draw', 'test_border_is_reached', 'lo = (u*s - side/2 + 0.5)', 'lo = (u*(s-1) - side/2 + 0.5)')
fault('no uniform box at the last place', 'draw', 'test_border_is_reached', '(u*(side+(s-1)))', '(u*(side+(s-2)))')
fault('lambda of the unclipped box', 'mix', 'test_lambda_of_the_clipped_box', 'box_lam(boxes, size), boxes\n',
    'lam if lam is not None else box_lam(boxes, size), boxes\n')
fault('lambda of the unclipped box, in training', 'callback', 'test_lambda_of_the_clipped_box',
    'self.size,self.lam = size,box_lam(self.boxes, size)', 'self.size,self.lam = size,0*box_lam(self.boxes, size)+0.5')
fault('MixUp keeps 1-lam', 'mix', 'test_lambda_is_the_own_share', '.lerp_(x, over_samples(lam, x))', '.lerp_(x, 1-over_samples(lam, x))')
fault('box_lam is the share inside', 'draw', 'test_lambda_is_the_own_share', '(total - math.prod(sides)).float()',
    'math.prod(sides).float()')
fault('cross-entropy weighs with 1-lam', 'loss', 'test_lambda_is_the_own_share', 'torch.stack([lam,1-lam], 1)',
    'torch.stack([1-lam,lam], 1)')
fault('cross-entropy weighs with 1-lam, in training', 'loss', 'test_lambda_is_the_own_share_in_training', 'torch.stack([lam,1-lam], 1)',
    'torch.stack([1-lam,lam], 1)')
fault('targets are mixed with 1-lam', 'mix', 'test_lambda_is_the_own_share', 'y1.lerp(y, over', 'y.lerp(y1, over')
fault('targets are mixed with 1-lam, in training', 'mix', 'test_lambda_is_the_own_share_in_training', 'y1.lerp(y, over',
    'y.lerp(y1, over')
fault("labels in the image's dtype", 'mix', 'test_labels_keep_their_precision', 'None if y is None else take(y, perm), lam\n',
    'None if y is None else take(y, perm).to(x.dtype), lam\n')
fault("lambda in the image's dtype", 'mix', 'test_labels_keep_their_precision', '    return xm, None',
    '    lam = lam.to(x.dtype)\n    return xm, None')
fault('a loss in half precision', 'loss', 'test_labels_keep_their_precision', 'pred = pred.float()', 'lam = lam.to(pred.dtype)')
fault("interpolated labels in the image's dtype", 'mix', 'test_labels_keep_their_precision_in_training',
    'return y1.lerp(y, over_samples(check_lam(lam, len(y), y.device), y))',
    'return y1.half().lerp(y.half(), over_samples(check_lam(lam, len(y), y.device), y.half())).to(y.dtype)')
fault('an even batch is required', 'draw', 'test_odd_batches', '    if n<1:', '    if n%2:')
fault('the last of an odd batch is left out', 'draw', 'test_odd_batches', '    if n<1:', '    n -= n%2\n    if n<1:')
fault('smoothed twice', 'loss', 'test_smoothed_once', '    if not label_smoothing:',
    '    label_smoothing = 1-(1-label_smoothing)**2\n    if not label_smoothing:')
fault('dense targets smoothed twice', 'loss', 'test_smoothed_once',
    '    if not (flat and flat.flatten and flat.is_2d): return loss_func(pred, dense)', '''    dense = dense*.8 + .02
    if not (flat and flat.flatten and flat.is_2d): return loss_func(pred, dense)''')
fault('pasted by weights of 0 and 1', 'mix', 'test_no_leak_through_a_zero_weight', 'torch.where(mask, x1, x, out',
    'x.lerp(x1, mask.to(x.dtype)) if True else torch.where(mask, x1, x, out')
fault('pasted by weights of 0 and 1, on the CPU', 'mix', 'test_no_leak_through_a_zero_weight', 'return _paste_slices(x, perm, boxes)',
    'return x.lerp(x[perm], box_mask(boxes, x.shape[-D:]).to(x.dtype))')
fault('an infinite loss with a share of 0', 'loss', 'test_no_leak_through_a_zero_weight',
    '-(logp.gather(1, idx) * w).masked_fill(w==0, 0)', '-(logp.gather(1, idx) * w)')
fault('mixed in place', 'mix', 'test_cached_batch_is_left_alone', 'take(x, perm).lerp_(x, over_samples(lam, x))',
    'x.lerp_(take(x, perm), 1-over_samples(lam, x))')
fault('pasted in place', 'mix', 'test_cached_batch_is_left_alone', 'res = x.clone()', 'res = x')
fault('targets interpolated in place', 'mix', 'test_cached_batch_is_left_alone', 'return y1.lerp(y, over', 'return y.lerp_(y1, 1-over')
fault("the first partner's label for all", 'mix', 'test_partners_of_all_rows', 'None if y is None else take(y, perm), lam\n',
    'None if y is None else take(y, perm)[:1].expand_as(y), lam\n')
fault("the first partner's label for all, in training", 'mixer', 'test_partners_of_all_rows', 'return y,take(y, self.perm)',
    'return y,take(y, self.perm)[:1].expand_as(y)')
fault('partners of inputs and labels apart', 'mixer', 'test_partners_of_all_rows', 'return y,take(y, self.perm)',
    'return y,take(y, draw_perm(self.n, y.device))')
fault('validation is mixed', 'mixer', 'test_validation_is_plain', 'CastToTensor.order+0.5,False', 'CastToTensor.order+0.5,True')
fault('ranks draw the same', 'batch', 'test_ranks_draw_for_themselves', 'if num_distrib()<2: return generator', 'return generator')
fault('ranks draw the same again', 'batch', 'test_ranks_draw_for_themselves', '+rank_distrib()', '')

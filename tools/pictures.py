"Store the pictures of notebooks in fewer bytes, at the same size: as PNG with a palette, or as JPEG where that is smaller"
import base64, io
from argparse import ArgumentParser
from fastcore.nbio import read_nb, write_nb
from PIL import Image

def coded(img, **kwargs):
    "The bytes of `img`, with its dots per inch"
    buf = io.BytesIO()
    img.save(buf, dpi=img.info.get('dpi', (150,150)), **kwargs)
    return buf.getvalue()

def smallest(data, colors):
    "The smaller of a PNG with so many `colors` and a JPEG, with its type"
    img = Image.open(io.BytesIO(data))
    rgb = Image.new('RGB', img.size, 'white')
    rgb.info = img.info
    rgb.paste(img, mask=img.getchannel('A') if img.mode=='RGBA' else None)
    flat = rgb.quantize(colors, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    flat.info = img.info
    return min([('image/png',coded(flat, format='PNG', optimize=True)),
        ('image/jpeg',coded(rgb, format='JPEG', quality=42, optimize=True, progressive=True))], key=lambda o: len(o[1]))

def main(path, colors):
    "Rewrite the pictures in the outputs of the notebook `path`"
    nb = read_nb(path)
    for o in (o for c in nb.cells for o in c.get('outputs', [])):
        for kind in [k for k in o.get('data', {}) if k in ('image/png','image/jpeg')]:
            old = base64.b64decode(o['data'][kind])
            new,res = smallest(old, colors)
            if len(res)>=.95*len(old): continue
            del o['data'][kind]
            o['data'] = {new:base64.b64encode(res).decode()} | o['data']
    write_nb(nb, path)

if __name__ == '__main__':
    p = ArgumentParser(description=__doc__)
    p.add_argument('paths', nargs='+', help="notebooks")
    p.add_argument('--colors', type=int, default=64, help="of a PNG; a dozen are enough for lines and words")
    args = p.parse_args()
    for o in args.paths: main(o, args.colors)

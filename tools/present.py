"What the docs site shows beyond the notebooks' own cells: pages made from other files, entries of the reference, and HTML that everyone can use"
import base64, io, json, re, textwrap
import yaml
from fastai.learner import Learner
from fastcore.nbio import mk_cell, new_nb, read_nb, write_nb
from PIL import Image
import fastmix.all as fm

helpers = 'helpers' # the page of what public modules do not hand on
modules = {v.__module__.removeprefix('fastmix.') for v in vars(fm).values() if getattr(v, '__module__', '').startswith('fastmix.')}

def is_public(name):
    "Is this what users call: a name of fastmix.all, one of its classes' methods, or a method that a Learner gains?"
    owner,_,method = name.partition('.')
    if owner=='Learner': return getattr(getattr(Learner, method, None), '__module__', '').startswith('fastmix') or isinstance(getattr(Learner, method, None), property)
    return getattr(getattr(fm, owner, None), '__module__', '').startswith('fastmix')

def documented(name):
    "The object that an entry of the reference documents"
    o = {**vars(fm), 'Learner':Learner}[name.split('.')[0]]
    for k in name.split('.')[1:]: o = getattr(o, k)
    return o

raises = re.compile(r'^Raises\n-+\n(?P<errors>.+)\n\s+(?P<when>.+)', flags=re.M)

def told_errors(name):
    "What a docstring says that is raised, as Markdown"
    doc = getattr(documented(name), '__doc__', None) or ''
    m = raises.search('\n'.join(o.strip() if not o.startswith('        ') else '    '+o.strip() for o in doc.split('\n')))
    return f"\n\n**Raises** {', '.join(f'`{o}`' for o in m['errors'].split(', '))}. {m['when']}." if m else ''

argument = re.compile(r'^ {4}(?P<stars>\*, |\*{0,2})(?P<name>\w+)(?::(?P<kind>[^=]*?))?(?:=(?P<default>.*?))?,?(?: # (?P<said>.*))?$')
signature = re.compile(r'```python\ndef (?P<name>\w+)\(\n(?P<args>.*?)\n\)(?:->(?P<kind>.*?))?:(?: # (?P<said>.*?))?\n```', flags=re.S)

def row(name, kind, default, said):
    "A line of a table of arguments; code in it stays code"
    said = '. '.join(o for o in (f'*{kind}*' if kind else '', said) if o)
    return '| ' + ' | '.join(o.replace('|', r'\|') for o in (f'`{name}`', f'`{default}`' if default else '', said)) + ' |'

def tabulate(m):
    "A signature whose arguments have comments, as one of 80 columns and a table: comments behind code run over the edge of a page"
    args = [argument.match(o) for o in m['args'].split('\n')]
    if not all(args) or not any(o['said'] for o in args): return m[0]
    parts = [o['stars'] + o['name'] + (f"={o['default']}" if o['default'] else '') for o in args]
    short = textwrap.fill(f"{m['name']}({', '.join(parts)})", 80, subsequent_indent='    ', break_long_words=False, break_on_hyphens=False)
    rows = [row(o['name'], o['kind'], o['default'], o['said']) for o in args]
    kind = f"`{m['kind']}`" if m['kind'] else ''
    back = [f"\n\n**Returns** {': '.join(o for o in (kind, m['said']) if o)}."] if m['said'] else []
    return '\n'.join([f'```python\n{short}\n```\n', '| argument | default | what it does |', '|---|---|---|', *rows]) + ''.join(back)

# What tools/help.py adds to docstrings; a page has the arguments' comments already
sections = re.compile(r'\n+(Parameters|Returns|Raises)\n-+\n((?!""").)*"""', flags=re.S)
entry = re.compile(r'^show_doc\(([\w.]+)', flags=re.M)
kinds = [(':NoneType=','='), ('torch._C.Generator','Generator'), ('torch.Tensor','Tensor')]

def mend_output(o, name):
    "What a carriage return overwrote is dropped; an entry has each argument once, as a reader would write it, and what is raised"
    if o.output_type=='stream': o.text = re.sub(r'.*\r', '', ''.join(o.text))
    data = o.get('data', {})
    if 'text/markdown' not in data: return
    text = sections.sub('"""', ''.join(data['text/markdown']))
    if name:
        for old,new in kinds: text = text.replace(old, new)
        text = re.sub(r'^### .*__.*$', lambda m: m[0].replace('_', r'\_'), text, flags=re.M)
        text = signature.sub(tabulate, text)
        text += told_errors(name) if is_public(name) else ''
    data['text/markdown'] = text

def mend(path, public=False, colab=''):
    """Make a processed notebook ready for the site, and return the entries of helpers that are taken off it, if it is a page of public names

    Dropped too: directives of Markdown cells, which smalldocs would show"""
    nb,taken = read_nb(path),[]
    for c in list(nb.cells):
        name = m[1] if c.cell_type=='code' and (m := entry.search(c.source)) else None
        if c.cell_type=='markdown': c.source = re.sub(r'\A(#\|.*\n?)+', '', c.source)
        for o in c.get('outputs', []): mend_output(o, name)
        if public and name and not is_public(name):
            nb.cells.remove(c)
            taken.append(c)
    if colab: nb.cells.insert(1, mk_cell(colab, cell_type='markdown'))
    write_nb(nb, path)
    return taken

def colab(path, cfg):
    "A line that opens a tutorial in Colab, once the site has an address; empty before"
    if not cfg.doc_url or not path.startswith('tutorials/'): return ''
    repo = cfg.git_url.removeprefix('https://github.com/')
    return (f"[Open in Colab](https://colab.research.google.com/github/{repo}/blob/{cfg.branch}/{cfg.nbs_path.name}/{path}), "
        f"and run `%pip install git+{cfg.git_url}` there first.")

def front(title, description):
    return mk_cell('---\n' + yaml.dump(dict(title=title, description=description), sort_keys=False, allow_unicode=True) + '---\n', cell_type='raw')

def write_page(path, title, description, cells): write_nb(new_nb([front(title, description), *cells]), path)

def helpers_page(path, taken):
    "The page of helpers; `taken` has the entries of each module, by its name"
    cells = [mk_cell("They may change without notice. Each is explained, with examples, on the page of its module.", cell_type='markdown')]
    for module,entries in taken.items():
        cells += [mk_cell(f"## {module}", cell_type='markdown'), *entries]
    write_page(path, "Helpers of public modules", "What public modules use themselves, and `fastmix.all` does not hand on", cells)

def changelog_page(path, root):
    text = (root/'CHANGELOG.md').read_text(encoding='utf-8')
    title,text = re.match(r'# ([^\n]*)\n+(.*)', text, flags=re.S).groups()
    text = re.sub(r'\]\((?![a-z]+:|#)(?:nbs/)?', lambda m: '](' if m[0].endswith('nbs/') else '](../', text)
    write_page(path, title, "What users notice of each version", [mk_cell(text, cell_type='markdown')])

def bibtex(cff):
    "A BibTeX entry of what `CITATION.cff` says"
    authors = ' and '.join(o.get('name') and f"{{{o['name']}}}" or f"{o['family-names']}, {o['given-names']}" for o in cff['authors'])
    fields = dict(title=f"{{{cff['title']}}}", author=authors, version=cff['version'], url=cff['repository-code'], license=cff['license'])
    return f"@software{{{cff['title']},\n" + ',\n'.join(f"  {k} = {{{v}}}" for k,v in fields.items()) + '\n}'

def cite_page(path, root):
    cff = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    text = (f"{cff['message']} [The method cards](methods.ipynb) name the papers.\n\n```bibtex\n{bibtex(cff)}\n```\n\n"
        f"The same as [`CITATION.cff`](../CITATION.cff), which GitHub and reference managers read. The licence is [{cff['license']}](../LICENSE).")
    write_page(path, "How to cite", "BibTeX, and the papers of the mixes", [mk_cell(text, cell_type='markdown')])

def add_pages(cache, root, taken):
    "Write the pages that no notebook holds, and return those for readers, and the internal one"
    changelog_page(cache/'changelog.ipynb', root)
    cite_page(cache/'cite.ipynb', root)
    helpers_page(cache/f'{helpers}.ipynb', taken)
    return ['changelog.ipynb','cite.ipynb'],f'{helpers}.ipynb'

def anchor(name): return re.sub(r'[^\w.-]', '', name).lower()

def how_to_use(root):
    "How to install and train, as the README's first two blocks of code say it"
    blocks = re.findall(r'^```(?:sh|python)\n.*?^```$', (root/'README.md').read_text(encoding='utf-8'), flags=re.M|re.S)
    python = next(i for i,o in enumerate(blocks) if o.startswith('```python'))
    return blocks[0] + '\n\n' + blocks[python]

def plain_tables(text):
    "A notebook whose tables are text, as the Markdown copy of a page has them"
    nb = json.loads(text)
    for o in (o for c in nb['cells'] for o in c.get('outputs', [])):
        if 'text/plain' in o.get('data', {}): o['data'].pop('text/html', None)
    return json.dumps(nb)

# What people look for by another word, or a word that many pages have: the page that answers, and a word of the section there
terms = {'Install':('index.html','command'), 'alpha':('reference.html','argument'), 'NaN':('questions.html','nan'), 'Cite':('cite.html',''),
    'Train loss above validation loss':('questions.html','training loss')}

def search_terms(entries):
    "Entries of the search index for `terms`, whose pages are there"
    for term,(page,word) in terms.items():
        found = [o for o in entries if o['href'].split('#')[0]==page]
        section = next((o for o in found if word in o['section'].lower()), found[0] if found else None)
        if section: yield section | dict(title=term, section=section['section'] or section['title'], objectID=f"{term} {section['href']}")

# ---- HTML

def level_headings(html):
    "Headings without jumps: below a title of level 1 the first one is of level 2, whatever it was written as"
    stack = []
    def _level(m):
        at = int(m[2])
        while stack and stack[-1][0]>=at: stack.pop()
        out = stack[-1][1]+1 if stack else 1
        stack.append((at,out))
        return f'<h{out}{m[3]}</h{out}>'
    return re.sub(r'(<h([1-6]))(?=[\s>])(.*?)</h\2>', _level, html, flags=re.S)

def size_pictures(html):
    "Show pictures of outputs at their size on paper, 150 dots an inch where a file does not say, so that a fine screen shows them sharp"
    def _size(m):
        img = Image.open(io.BytesIO(base64.b64decode(m[2])))
        dpi = img.info.get('dpi', (150,))[0]
        return f'{m[1]}{m[2]}" width="{round(img.width*96/dpi)}' if dpi>96 else m[0]
    return re.sub(r'(<img [^>]*?src="data:image/(?:png|jpeg);base64,)([^"]+)', _size, html)

changes = [
    (r'<i class="(bi bi-[\w-]+)" role="img">', r'<i class="\1" aria-hidden="true">'),
    (r'<a (class="sidebar-item-text[^>]*?) role="navigation"([^>]*)>(.*?)</a>', r'<button type="button" \1\2>\3</button>'),
    (r'<a (class="sidebar-item-toggle[^>]*?) role="navigation"([^>]*)>(.*?)</a>', r'<button type="button" \1\2>\3</button>'),
    (r'<nav class="navbar ', r'<nav aria-label="Site" class="navbar '),
    (r'<nav class="quarto-secondary-nav"', r'<nav aria-label="This page" class="quarto-secondary-nav"'),
    (r'<nav id="quarto-sidebar"', r'<nav aria-label="All pages" id="quarto-sidebar"'),
    (r'<nav class="page-navigation"', r'<nav aria-label="Previous and next page" class="page-navigation"'),
    (r'<nav (id="TOC" role="doc-toc")', r'<nav aria-label="On this page" \1'),
    (r'<h2 id="toc-title">(.*?)</h2>', r'<p id="toc-title">\1</p>'),
    (r'<div (id="quarto-margin-sidebar")', r'<div role="complementary" aria-label="About this page" \1'),
    (r'<nav id="TOC-body" role="doc-toc"><h2>(.*?)</h2>(.*?)</nav>',
        r'<details class="toc-phone"><summary>\1</summary><nav id="TOC-body" aria-label="\1">\2</nav></details>'),
    (r'<th([^>]*)>\s*</th>', r'<td\1></td>'),
    (r'<div class="sd-table"', r'<div tabindex="0" class="sd-table"'),
    (r'<div class="cell-output cell-output-display">(?=\s*<(?:div|style|table))', r'<div tabindex="0" class="cell-output cell-output-display">'),
    (r'<button title="Copy to Clipboard"', r'<button type="button" aria-label="Copy" title="Copy to Clipboard"'),
    (r'(<a class="quarto-color-scheme-toggle[^>]*?)title=', r'\1aria-label="Dark or light" title='),
    (r'<a (onclick="window.scrollTo[^>]*>)', r'<a tabindex="0" \1')]

def breakable(m):
    "A block of code where runs without a space go on below after a sign, never within a word"
    tokens = re.findall(r'<[^>]*>|&[#\w]+;|.', m[0], flags=re.S)
    at = [i for i,o in enumerate(tokens) if o[0]!='<']
    plain = ''.join(tokens[i] if len(tokens[i])==1 else '&' for i in at)
    for run in re.finditer(r'\S{30,}', plain):
        for sign in re.finditer(r'(?<!\d)[.,()\[\]{}=/|:*+-]+(?=[\w&])', run[0]): tokens[at[run.start()+sign.end()-1]] += '<wbr>'
    return ''.join(tokens)

def mend_html(html):
    "What smalldocs leaves out: names for regions and buttons, a folded table of contents for phones, headings in order, boxes that keys can scroll"
    for old,new in changes: html = re.sub(old, new, html, flags=re.S)
    start = html.index('<main')
    main = re.sub(r'<pre[^>]*><code.*?</code>', breakable, html[start:], flags=re.S)
    return html[:start] + size_pictures(level_headings(main))

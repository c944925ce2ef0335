"""Pages as sites serve them: content among menus, banners, comments and hidden text."""

from __future__ import annotations

# Words that surround the content; an extracted text contains none.
FURNITURE = (
    "Imprint", "Our sites", "cookies to improve", "Acceptall", "Subscribe now", "Hidden offer", "Off the screen",
    "Only for robots", "Nice article", "Share on", "You may also like", "Skip to",
)  # fmt: skip

_STYLE = "<style>.offer-box{color:red} .offer-box.later { display: none } @media print {article{display:none}}</style>"

HEADER = """<!DOCTYPE html><html lang="en"><head><title>{title}</title>{style}</head><body class="home has-sidebar">
<a class="skip-link sr-only" href="#main">Skip to content</a>
<div id="cookie-banner" role="dialog"><p>We use cookies to improve your visit.</p><button>Acceptall</button></div>
<header class="site-header"><a href="/">The Daily Mill</a>
<nav><ul><li><a href="/a">Our sites</a></li><li><a href="/b">Archive</a></li></ul></nav></header>"""
FOOTER = """<div hidden>Hidden offer one</div><div style="color:red; display: none">Hidden offer two</div>
<div class="offer-box later">Hidden offer three</div><p aria-hidden="true">Hidden offer four</p>
<div style="position:absolute; left:-9999px">Off the screen</div>
<div class="newsletter-signup"><h3>Subscribe now</h3><form><label>Mail</label><input name="mail"></form></div>
<section id="comments" class="comments-area"><h2>2 comments</h2><ol class="comment-list"><li class="comment">
<p>Nice article, thank you for it. I have been at the mill last year.</p></li></ol>
</section><footer><p>Imprint</p><p>© 2026 The Daily Mill</p></footer><script>var x = "Only for robots";</script>
</body></html>"""


def _header(title: str) -> str:
    return HEADER.replace("{title}", title).replace("{style}", _STYLE)


NEWS = (
    _header("The mill opens again")
    + """<main id="main"><article><h1>The mill opens again</h1><p class="byline">By Ada Miller</p>
<figure><img src="data:image/png;base64,iVBORw0KGgo" alt="The mill in May">
<figcaption>The wheel turns.</figcaption></figure>
<p>After nine years the <a href="/mill">water mill</a> of the village grinds flour again.
The wheel was made anew.</p>
<div class="social-share"><a href="x">Share on A</a> <a href="y">Share on B</a></div>
<h2>Three steps</h2><ol><li>The race was dug out.</li><li>The wheel was built:
<ul><li>of oak</li><li>of iron</li></ul></li>
<li>The stones were dressed.</li></ol>
<blockquote><p>It runs as it did in 1890.</p><footer>The miller</footer></blockquote>
<p>Visitors are welcome from <strong>May to October</strong>, every day but Monday.</p></article>
<aside class="related-articles"><h3>You may also like</h3>
<ul><li><a href="/1">A boat on the river</a></li></ul></aside>
</main>"""
    + FOOTER
)

DOCS = (
    _header("Install - Miller docs")
    + """<div class="layout"><div class="sidebar"><ul><li><a href="#">Our sites</a></li></ul></div>
<main><h1>Install<a class="headerlink" href="#install">¶</a></h1><p>Use <code>pip install miller</code> first:</p>
<div class="highlight-python notranslate"><div class="highlight"><button class="copybtn">Acceptall</button>
<pre><span></span>
<span class="kn">import</span> <span class="nn">miller</span>

<span class="k">def</span> <span class="nf">grind</span>(corn):
    <span class="k">return</span> miller.run(corn)
</pre></div></div>
<pre><code class="language-sh"><span class="line">cd /srv/mill</span><br><span>./start --fast</span></code></pre>
<table class="highlighttable"><tr><td class="linenos"><pre>1
2</pre></td><td class="code"><pre>wheel:
  speed: 12</pre></td></tr></table>
<div class="admonition note"><p>The wheel must be <em>dry</em>.</p></div><aside class="note">Oil it twice.</aside>
<h2>Options</h2><table><thead><tr><th>Option</th><th>Default</th><th>Meaning</th></tr></thead><tbody>
<tr><td><code>speed</code></td><td rowspan="2">12</td><td>turns | minute</td></tr>
<tr><td><code>load</code></td><td>sacks<br>an hour</td></tr></tbody></table>
<ol start="4"><li><p>Start the wheel.</p><pre>mill start</pre></li><li value="7">Stop it.</li></ol>
<dl><dt>race</dt><dd>The channel to the wheel.</dd></dl>
<details><summary>Why so slow?</summary><p>Fast stones burn the flour.</p></details>
<h3><button>Can it rain?</button></h3><div><p>Yes, it can.</p></div></main></div>"""
    + FOOTER
)

SHOP = (
    _header("Oak wheel, 2 m")
    + """<ol class="breadcrumb"><li><a href="/">Our sites</a></li></ol>
<div id="product" role="main"><h1>Oak wheel, 2 m</h1><form action="/cart" method="post"><div class="price">1,290 €</div>
<select name="n"><option>Share on</option></select><button>Acceptall</button></form>
<p>In stock, delivered in 3 days.</p><h2>Details</h2>
<table><tr><th>Weight</th><td>240 kg</td></tr><tr><th>Wood</th><td>oak</td></tr></table>
<ul class="reviews"><li>Good wheel, says Bo.</li></ul></div>
<div class="recommended"><h3>You may also like</h3><a href="/p">Elm wheel</a></div>"""
    + FOOTER
)

FORUM = (
    _header("Wheel squeaks - Mill forum")
    + """<div class="forum"><h1>Wheel squeaks</h1>"""
    + "".join(
        f"""<div class="post" id="p{number}"><div class="postprofile"><a href="/u/{name}">{name}</a></div>
        <div class="postbody"><p>{text}</p></div></div>"""
        for number, (name, text) in enumerate(
            [("ada", "My wheel squeaks when it is warm."), ("bo", "Mine did too. Grease the axle with tallow."),
             ("cy", "Tallow helped here, but only for a week, then I took beeswax.")]
        )
    )
    + "</div>"
    + FOOTER
)  # fmt: skip

# A thread whose answers are marked up as comments.
THREAD = (
    "<html><head><title>Ask: wheels?</title></head><body><h1>Ask: wheels?</h1><div class='comment-tree'>"
    + "".join(f"<div class='comment'><p>Answer {n}: take oak of the year {1900 + n}.</p></div>" for n in range(6))
    + "</div><footer>Imprint</footer></body></html>"
)

SHORT = _header("Closed") + "<main><h1>Closed</h1>We are back in May.</main>" + FOOTER

TABLE = (
    _header("Levels")
    + "<table><tr><th>Month</th><th>Level</th></tr>"
    + "".join(f"<tr><td>Month {n}</td><td>{10 * n} cm</td></tr>" for n in range(1, 13))
    + "</table>"
    + FOOTER
)

# Text lies in main without a paragraph.
BARE = (
    _header("Bare")
    + "<main><div>The first line stands alone.</div><div>The second <span>follows it</span>.<br>A third line."
    "</div></main>" + FOOTER
)

# Neither main nor article: the content is one of many div.
SOUP = (
    "<html><head><title>Soup</title></head><body><div id='a'><div id='b'>"
    + "".join(
        f"<p>Paragraph {n} of the story tells at length how the miller came to the river and stayed.</p>"
        for n in range(8)
    )
    + "</div><div id='c'><div>Weather today: sun and wind, 19 degrees in the shade.</div></div></div></body></html>"
)

# Much visible text in pieces that no rule takes for an article.
PIECES = (
    "<html><body>" + "".join(f"<div><span>Item {n}</span> <b>{n} €</b></div>" for n in range(200)) + "</body></html>"
)

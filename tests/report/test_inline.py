"""A report as a notebook shows it: one piece of HTML, in which nothing of a run's text is more than text."""

import base64

from regbench.report import inline

MARKDOWN = """# Regularization on `a|b`

<script>alert(1)</script> & [one](lr=0.01/report.md), [two](https://example.org/), [three](#noise)

![It's <b>](figures/a%20b.png)

![gone](figures/gone.png)

| a | b |
|---|---|
| <img src=x onerror=y> | 1 |
"""


def test_it_has_its_figures_in_it_and_no_html_of_others(elsewhere):
    (elsewhere / "report" / "figures").mkdir(parents=True)
    (elsewhere / "report" / "figures" / "a b.png").write_bytes(b"picture")
    (elsewhere / "report" / "report.md").write_text(MARKDOWN)
    html = inline.html(elsewhere / "report" / "report.md")
    picture = base64.b64encode(b"picture").decode()
    assert f'<img src="data:image/png;base64,{picture}" alt="It\'s &lt;b&gt;" style="max-width: 100%" />' in html
    assert 'src="figures/gone.png"' in html
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; " in html
    assert "<td>&lt;img src=x onerror=y&gt;</td>" in html
    # from the folder of the notebook
    assert 'href="report/lr=0.01/report.md"' in html
    assert 'href="https://example.org/"' in html and 'href="#noise"' in html

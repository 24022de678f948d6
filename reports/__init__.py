"""From tracked runs to tables, plots and pages. Reads runs; never trains or measures.

gathering   reads runs into a Context, from which every form of the report is made; paired tests, sweeps
text        findings, formats of metrics, escaping, catalogues of texts by language, the experimental setup
tables      the comparison table and the detail tables
plots       the plots, as SVG that follows the page's colours
write.py    writes every form: HTML page, Markdown, LaTeX, CSV
report.py   the report of a suite or of a scaling study, which the commands call
row_page.py the content of the page of one row: what the architecture is, and its results in every suite
scaling     the report of a scaling study: figures, tables, verdicts, from the points of its runs
site.py     writes a static site of all suites, with these pages
templates/  Jinja2 templates of the page
results/    committed results of real runs
"""

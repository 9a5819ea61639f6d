import sys

from jinja2 import Environment, PackageLoader

letter = Environment(loader=PackageLoader("app"), autoescape=True).get_template("letter.html")
print(letter.render(names=sys.argv[1:]))

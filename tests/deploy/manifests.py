"""Prints the documents of a YAML file as JSON, once the schemas of Kubernetes have accepted all of them.

manifests.py FILE VERSION...: for each version, and strictly: what the schema does not know is refused, too.
"""

import json
import sys

import kubernetes_validate
import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    documents = list(yaml.safe_load_all(file))
for document in documents:
    for version in sys.argv[2:]:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{document.get('kind')} in {version}: {'.'.join(map(str, error.path))}: {error.message}")
json.dump(documents, sys.stdout)

"""Convert ADE20K (SceneParsing): semantic labels, panoptic and instance json files.

Needs images/, annotations/ and, for all but the semantic labels, annotations_instance/.
"""

import sys

from mask_transformers.data.preparation.ade20k import conversions
from mask_transformers.data.preparation.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__, "ADEChallengeData2016", conversions))

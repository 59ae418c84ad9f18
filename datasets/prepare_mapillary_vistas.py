"""Check Mapillary Vistas v1.2, and make its panoptic files if they are not there.

Needs {training,validation}/ with images/, labels/ and, without panoptic/, instances/.
"""

import sys

from mask_transformers.data.preparation.command import main
from mask_transformers.data.preparation.mapillary import conversions

if __name__ == "__main__":
    sys.exit(main(__doc__, "mapillary_vistas", conversions))

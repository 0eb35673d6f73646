# SPDX-License-Identifier: Apache-2.0
"""``ssm web``: a page that shows a pool as it works.

::

    verdict     what is worst, and the sentence on top
    view        a look at a pool, as the page gets it
    feed        looks again and again, and remembers; finds the pool again when it is made anew
    server      HTTP: the page, and a stream of looks
    page.html, page.css, page.js    what the browser shows; no other file is loaded

Everything here reads only. Texts out of shared memory are cut to a length, and the page shows them as text.
"""

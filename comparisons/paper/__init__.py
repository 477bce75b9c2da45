"""All that knows Kingma & Welling (2013): its curves, its panels, the verdicts on them and the report of it."""

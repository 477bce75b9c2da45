"""Tables, figures and pages of any rows."""

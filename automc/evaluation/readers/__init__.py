"""One reader per kind of data set: settings in, facts and splits out."""
